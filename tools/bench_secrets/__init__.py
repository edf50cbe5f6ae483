"""`make bench-secrets`: what the secret path costs, each figure beside what it could not be cheaper than."""
