"""What seals: master keys, and the envelope of a record."""
