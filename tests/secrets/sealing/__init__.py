"""Tests of `hookseal.secrets.sealing`."""
