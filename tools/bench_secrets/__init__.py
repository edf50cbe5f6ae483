"""`make bench-secrets`: the cost of the secret path, each figure with a baseline that is its lower bound."""
