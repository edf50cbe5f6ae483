"""Tests of `hookseal.cli`."""
