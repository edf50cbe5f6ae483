"""The migrations, forwards only, oldest first."""
