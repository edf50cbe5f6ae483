"""`make bench-keys`: the cost of re-wrapping every record under another master key, while a worker delivers."""
