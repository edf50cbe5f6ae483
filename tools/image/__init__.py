"""Builds the image of deploy/, and uses it as its users do: `make image`."""
