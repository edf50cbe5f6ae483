"""Where a text is not JSON, and why, in words that have nothing of the text."""

import json


def problem(text: str) -> str | None:
    """Return where the text stops being JSON, and why: `line 1, column 5: expecting value`. None if it is JSON.

    NaN and Infinity, which Python reads, are no JSON either.
    """
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refused)
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at").removesuffix(" starting")
        return f"line {error.lineno}, column {error.colno}: {reason[0].lower()}{reason[1:]}"
    except (ValueError, RecursionError) as error:
        return str(error) if isinstance(error, ValueError) else "it is nested too deeply"
    return None


def said(text: str) -> str:
    """Return the problem as the end of a sentence, nothing if the text is JSON."""
    found = problem(text)
    return "" if found is None else f": {found}"


def _refused(constant: str) -> object:
    raise ValueError(f"it has {constant}, which JSON does not have")
