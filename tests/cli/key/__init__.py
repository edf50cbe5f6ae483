"""Tests of `hookseal.cli.key`."""
