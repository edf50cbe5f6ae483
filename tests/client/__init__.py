"""Tests of `hookseal.client`."""
