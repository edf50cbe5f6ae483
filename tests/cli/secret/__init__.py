"""Tests of `hookseal.cli.secret`."""
