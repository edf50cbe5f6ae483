"""Demo: a complete run on embedded servers, and the receiver that verifies it. Only the commands import it."""
