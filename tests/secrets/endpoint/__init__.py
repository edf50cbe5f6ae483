"""Tests of `hookseal.secrets.endpoint`."""
