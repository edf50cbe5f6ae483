"""The catalogue of event types: what each means, and the JSON schemas of its data."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import asyncpg

from hookseal.errors import Conflict, NotFound
from hookseal.ground.ids import require_limit
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "event_types.sql")
_MOST_NAMES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CataloguedType:
    """What the catalogue says of an event type. `schemas` is the text of a JSON object, a schema for each version."""

    name: str
    description: str
    schemas: str | None
    deprecated: bool
    archived: bool


async def add(connection: Connection, given: CataloguedType) -> dict[str, Any]:
    """Add the type, also in place of one that is archived, in the caller's transaction.

    Raises `Conflict` if there is one with this name, `Unavailable`.
    """
    row = await _SQL.row(connection, "add", *_columns(given))
    if row is None:
        raise Conflict("there is an event type with this name", field="name")
    return dict(row)


async def get(executor: Executor, name: str) -> dict[str, Any]:
    """Return the type, also if it is archived. Raises `NotFound` and `Unavailable`."""
    return _found(await _SQL.row(executor, "get", name))


async def lock(connection: Connection, name: str) -> dict[str, Any]:
    """Return the type, which nobody else changes until the transaction ends. Raises `NotFound` and `Unavailable`."""
    return _found(await _SQL.row(connection, "lock", name))


async def update(connection: Connection, given: CataloguedType) -> dict[str, Any]:
    """Store what is said of a type that the caller has locked. Raises `Unavailable`."""
    return _found(await _SQL.row(connection, "update", *_columns(given)))


async def page(
    executor: Executor, *, with_archived: bool, limit: int, after: str | None, descending: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` types after a name, and the last name if others follow.

    Raises `Malformed` for a limit outside 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    order = "descending" if descending else "ascending"
    rows = await _SQL.rows(executor, order, with_archived, after, limit + 1)
    items = [dict(row) for row in rows[:limit]]
    return items, items[-1]["name"] if len(rows) > limit else None


async def near(executor: Executor, name: str) -> str | None:
    """Return the type for which this name may be a slip, of the first 1,000; None if it is one, or is near to none.

    Raises `Unavailable`.
    """
    own = await _SQL.row(executor, "get", name)  # it may be behind the first 1,000
    if own is not None and not own["archived"]:
        return None
    names = [row["name"] for row in await _SQL.rows(executor, "names", _MOST_NAMES)]
    return next(iter(get_close_matches(name, names, n=1)), None)


def _columns(given: CataloguedType) -> tuple[object, ...]:
    return given.name, given.description, given.schemas, given.deprecated, given.archived


def _found(row: asyncpg.Record | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("there is no such event type", field="name")
    return dict(row)
