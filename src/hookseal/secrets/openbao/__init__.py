"""OpenBao, or Vault: the HTTP client that the provider and the KMS of that name share."""
