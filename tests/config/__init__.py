"""Tests of `hookseal.config`."""
