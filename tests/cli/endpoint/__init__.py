"""Tests of `hookseal.cli.endpoint`."""
