"""`make bench-migration`: how fast plaintext secrets are migrated, beside the same statements without secrets."""
