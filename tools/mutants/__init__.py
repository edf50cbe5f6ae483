"""Mutants: changes of the source, each of which must make the tests fail that are named with it."""
