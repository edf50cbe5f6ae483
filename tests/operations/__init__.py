"""Tests of `hookseal.operations`."""
