"""`hookseal endpoint`: a module for each command or pair of commands."""
