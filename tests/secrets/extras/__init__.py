"""Tests of `hookseal.secrets.extras`."""
