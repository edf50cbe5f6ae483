"""Tests of `hookseal.queue`."""
