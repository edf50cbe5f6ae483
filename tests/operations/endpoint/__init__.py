"""Tests of `hookseal.operations.endpoint`."""
