"""`hookseal key`: a module for each step in the life of a master key."""
