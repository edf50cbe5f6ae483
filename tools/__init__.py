"""Checks and benchmarks of the project; nothing here is part of the product."""
