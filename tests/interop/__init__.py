"""Independent libraries verify the requests of hookseal."""
