"""Tests of `hookseal.secrets.key`."""
