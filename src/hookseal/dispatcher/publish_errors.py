"""What the SQLSTATEs of the publish functions mean, for every driver of PostgreSQL. Pure."""

import re
import shlex
from typing import Final

from hookseal.ground.errors import Conflict, HooksealError, Malformed, Refused

_NUMBERED: Final = re.compile(r"events\[(\d+)\]: (.*)", re.DOTALL)  # PostgreSQL counts from 1
_NAMED_ROLE: Final = re.compile(r"role (.+) may not publish")  # the text of the error of hookseal.publish
_NO_JSON: Final = frozenset({"22P02", "22P05", "22021", "54001"})  # no JSON, no text, or nested too deeply


def publish_error(sqlstate: str | None, message: str, column: str | None, tenant_id: str) -> HooksealError | None:
    """Return the error with its field, and the index of its event; None if it is not about what was published.

    The texts of these errors contain fields and rules, no values. A 42501 says who must grant the right.
    """
    text, index = _split_index(message)
    match sqlstate:
        case "HS409":
            return Conflict(text, field="event_id", index=index)
        case "HS422":
            return Malformed(text, field=column, index=index)
        case "42501":
            return Refused(_not_allowed(message, tenant_id))
        case state if state in _NO_JSON:
            return Malformed("data must be JSON that PostgreSQL accepts", field="data")
        case _:
            return None


def _split_index(message: str) -> tuple[str, int | None]:
    """Return the message, counting events from 0, and the index of its event; None if there is only one event."""
    numbered = _NUMBERED.fullmatch(message)
    if numbered is None:
        return message, None
    index = int(numbered[1]) - 1
    return f"events[{index}]: {numbered[2]}", index


def _not_allowed(message: str, tenant_id: str) -> str:
    named = _NAMED_ROLE.match(message)
    role = shlex.quote(named[1]) if named else "ROLE"
    return f"{message}: an operator must run `hookseal producer grant --role {role} --tenant {tenant_id}`"
