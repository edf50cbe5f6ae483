"""Tests of `hookseal.receiver`."""
