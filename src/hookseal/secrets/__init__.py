"""Secrets: sealed, opened for one use, and turned into something that signs. No key leaves this room."""
