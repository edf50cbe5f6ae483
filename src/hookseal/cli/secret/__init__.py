"""`hookseal secret`: a module for each command."""
