"""The versions of secrets: where they are kept, which are in use, and when they end."""
