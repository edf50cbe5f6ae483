"""Tests of the schema: its tables are created once, and only with the rights of the role."""
