"""Tests of `hookseal.postgres`, through which every room uses PostgreSQL."""
