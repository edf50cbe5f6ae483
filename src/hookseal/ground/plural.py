"""Numbers with their noun."""


def plural(number: int, one: str, many: str) -> str:
    """Return the number with the singular or the plural: `1 worker does`, `3 workers do`."""
    return f"{number} {one if number == 1 else many}"
