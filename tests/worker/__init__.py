"""Tests of `hookseal.worker`."""
