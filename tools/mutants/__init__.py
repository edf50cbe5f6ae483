"""Changes of the source, each of which must be noticed by the tests that are named beside it."""
