"""Tests of `hookseal.ground`."""
