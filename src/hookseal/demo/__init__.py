"""Demo: the whole story on embedded parts, and the receiver that checks it. Only the commands import it."""
