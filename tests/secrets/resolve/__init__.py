"""Tests of `hookseal.secrets.resolve`."""
