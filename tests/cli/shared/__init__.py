"""Tests of `hookseal.cli.shared`."""
