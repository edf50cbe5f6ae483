"""Tests of the checks themselves, and of the structure of the repository."""
