"""Tests of `hookseal.secrets.store`."""
