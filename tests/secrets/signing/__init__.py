"""Tests of `hookseal.secrets.signing`."""
