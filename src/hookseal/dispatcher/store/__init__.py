"""Store: the statements of the dispatcher, each beside the function that runs it."""
