"""Pages in the dialect of Svix. Pure.

An iterator is the id with which a page ended; with a `-` before it, the id before which the previous page ends. The id
of an event may itself begin with `-`: then `~` stands before it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

from hookseal.admin import Page
from hookseal.api.call import In, Out
from hookseal.ground.ids import EVENT_TYPE_MAX, FORMS, OPERATOR_TENANT, decode_cursor

T = TypeVar("T")

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=250)]
DEFAULT_LIMIT: Final = 50
SEARCHED: Final = 3_000  # rows at most, to find those of a page: so it comes within 20 ms, also if none matches
_END: Final = r"\Z"  # of an expression of Python; in ECMA it is `$`


def _ids(pattern: str) -> msgspec.Meta:
    """Return the form of an iterator. No line break may stand behind `$`: for Python it would be the end as well."""
    return msgspec.Meta(pattern=rf"^(?:{pattern.replace(_END, '$')})$(?!\n)")


_EVENT: Final = FORMS["event_id"]
_TYPE: Final = FORMS["event_type"]
# The iterators of each kind of list, as the document has them. In both directions those of:
OfMessages = Annotated[str, _ids(rf"[-~]{_EVENT}|(?!-){_EVENT}")]
OfEndpoints = Annotated[str, _ids(rf"-?{FORMS['uuid']}")]
OfAttempts = Annotated[str, _ids(rf"-?{FORMS['uuid7']}\.[1-9][0-9]{{0,8}}")]
# In one direction those of:
OfDeliveries = Annotated[str, _ids(FORMS["uuid"])]
OfTokens = Annotated[str, _ids(FORMS["uuid"])]
OfTasks = Annotated[str, _ids(rf"(?:{FORMS['tenant_id']}|{OPERATOR_TENANT})\.{FORMS['uuid']}")]
OfApplications = Annotated[str, _ids(FORMS["tenant_id"])]
OfEventTypes = Annotated[str, _ids(rf"(?=~?[^~]{{1,{EVENT_TYPE_MAX}}}$)(?:~(?=-)|(?!-))(?:{_TYPE})")]
OfAuditRows = Annotated[str, _ids("0|[1-9][0-9]{0,17}")]


class Paged(In):
    """The parameters of every list. A list has an `iterator`, too, of its kind."""

    iterator: str | None = None
    limit: Limit = DEFAULT_LIMIT


class Ordered(Paged):
    """The parameters of a list that may be had in both orders."""

    order: Literal["ascending", "descending"] = "descending"


class ListOut(Out, Generic[T]):
    """A page. `done`: nothing follows it in its direction. If it is not `done`, it may have few items, or none."""

    data: list[T]
    done: bool
    iterator: str | None
    prev_iterator: str | None


def position(iterator: str | None) -> tuple[str | None, str | None]:
    """Return the id that the page follows, and the id that it precedes; one of them, or none."""
    if iterator is None:
        return None, None
    match iterator[:1]:
        case "-":
            return None, iterator[1:]
        case "~":
            return iterator[1:], None
        case _:
            return iterator, None


def end_of(page: Page[Any]) -> str | None:
    """Return the id with which the page of an Admin ended, also if that is none of its items; None after the last."""
    return None if page.next_cursor is None else decode_cursor(page.next_cursor).rpartition("/")[2]


def one_way(items: Sequence[T], ids: Sequence[str], *, done: bool, end: str | None = None) -> ListOut[T]:
    """Return a page of a list that is read in one direction."""
    page = listed(items, ids, done=done, end=end)
    page.prev_iterator = None
    return page


def following(iterator: str | None) -> str | None:
    """Return the id that a page of such a list follows."""
    return position(iterator)[0]


def listed(items: Sequence[T], ids: Sequence[str], *, done: bool, end: str | None = None) -> ListOut[T]:
    """Return the page with these items, whose ids are given. It ended with the id `end`, by default the last one."""
    first, last = (ids[0] if ids else end), (end or (ids[-1] if ids else None))
    return ListOut(
        data=[*items],
        done=done,
        iterator=None if last is None else _after(last),
        prev_iterator=None if first is None else f"-{first}",
    )


def _after(identifier: str) -> str:
    return f"~{identifier}" if identifier.startswith(("-", "~")) else identifier
