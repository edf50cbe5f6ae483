"""`make bench-keys`: what it costs to seal every record under another master key, while a worker delivers."""
