"""Numbers in sentences."""


def counted(number: int, one: str, many: str) -> str:
    """Return the number with the words that go with it: `1 worker does`, `3 workers do`."""
    return f"{number} {one if number == 1 else many}"
