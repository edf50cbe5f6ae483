"""Tests of `hookseal.dispatcher.http`."""
