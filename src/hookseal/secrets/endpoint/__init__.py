"""The secret side of an endpoint row: its pointer, and each way in which that moves."""
