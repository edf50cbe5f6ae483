"""What an operator, or a schedule, changes of an endpoint and of its secret."""
