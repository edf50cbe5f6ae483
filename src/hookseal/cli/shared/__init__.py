"""What commands share: the settings, a connection, unlocked secrets, the files that they read, and their output."""
