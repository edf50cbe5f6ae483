"""What an endpoint has beside its signing secret: header values and a TLS identity."""
