"""What an operator changes of master keys and of the integrity key."""
