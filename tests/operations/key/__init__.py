"""Tests of `hookseal.operations.key`."""
