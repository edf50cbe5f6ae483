"""The table of master keys: their life, and moving records from one to another."""
