"""Installs the built package as users do, and tries it: `make smoke`."""
