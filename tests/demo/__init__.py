"""Tests of `hookseal.demo`."""
