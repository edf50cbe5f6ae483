"""Tests of `hookseal.dispatcher`."""
