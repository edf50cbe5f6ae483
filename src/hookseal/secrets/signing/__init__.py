"""What signs: the secret of an endpoint as a key."""
