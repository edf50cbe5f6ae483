"""Compares the schema of a database with the one that this version makes, and names what differs.

`fingerprints.json` has, for each revision, a digest of every object: written by `make docs`, never by hand. The column
of plaintext secrets may be there, be forbidden or be gone (`plaintext.py`): for the last two states it has only what
is different then. A role of ours may have less than `rights.toml` says, unless a worker cannot deliver then.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from hookseal.errors import ConfigError
from hookseal.ground.ids import plural
from hookseal.postgres.pool import Connection, Executor, connected
from hookseal.postgres.schema import plaintext, revision, rights
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.postgres.schema.roles import ROLES
from hookseal.postgres.statements import Statements

FILE: Final = "fingerprints.json"

_SQL: Final = Statements("hookseal.postgres.schema", "fingerprint.sql")
# The text of an expression in the catalog depends on these.
_SETTINGS: Final = """
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL quote_all_identifiers = off;
SET LOCAL jit = off
"""
_RELATIONS: Final = ("table ", "view ", "materialized view ", "sequence ")
_WHOLE: Final = (*_RELATIONS, "function ", "type ")
# What an operator may add: it changes neither what is stored nor what hookseal's own roles may do.
_MAY_BE_ADDED: Final = ("index ", "rights of another role, ", *_RELATIONS)
_OF_A_RELATION: Final = re.compile(
    r"column (?P<column>[^.]+)\."
    r"|(?:constraint|index|unique index|trigger|rule|policy) .+ on (?P<part>\S+)$"
    r"|rights of .+ to (?:table|view|materialized view|sequence) hookseal\.(?P<rights>\S+)$"
)
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An object that the database has in another form, does not have (`missing`), or has in addition (`unknown`).

    `is_allowed`: an operator may add it; workers start all the same.
    """

    object: str
    how: str
    is_allowed: bool

    def __str__(self) -> str:
        return f"{self.object} {self.how if self.how == 'differs' else f'is {self.how}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The revision and fingerprint of a database, the fingerprint that this revision should have, and what differs.

    `expected` is None if this version does not know the revision; nothing is compared then. `is_of_this_line` is False
    for a schema that a build before the first release made.
    """

    revision: str
    found: str
    expected: str | None
    is_of_this_line: bool
    differences: tuple[Difference, ...]

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """The differences with which no worker starts."""
        return tuple(each for each in self.differences if not each.is_allowed)


async def compare(source: Executor) -> Comparison | None:
    """Compare the schema with that of its revision; return None if hookseal was never installed in the database."""
    async with connected(source) as connection:
        at = await revision.current(connection)
        if at is None:
            return None
        column = await plaintext.state(connection) or PlaintextColumn.THERE  # without its table, the table is missing
        is_of_this_line = await revision.is_of_this_line(connection)
        objects = await read(connection)
        narrowed = await _narrowed(connection) if at == revision.EXPECTED else frozenset[str]()
    expected = _expected().get(at, {}).get(column)
    return Comparison(
        revision=at,
        found=digest(objects),
        expected=None if expected is None else digest(expected),
        is_of_this_line=is_of_this_line,
        differences=() if expected is None else find_differences(expected, objects, narrowed),
    )


async def require(source: Executor) -> None:
    """Raise `ConfigError`, naming what differs and what to do, unless the schema is as its revision makes it.

    What an operator may add is no difference here. A revision that this version does not know is not compared.
    """
    comparison = await compare(source)
    if comparison is not None and (problem := explanation(comparison)) is not None:
        raise ConfigError(problem)


def explanation(comparison: Comparison) -> str | None:
    """Return what is wrong, the first few objects by name, and what to do about it; None if nothing is."""
    wrong = comparison.wrong
    if not wrong:
        return None
    named = ", ".join(str(each) for each in wrong[:_MOST_NAMED])
    more = len(wrong) - _MOST_NAMED
    cause = (
        "If somebody changed it, have the owner of the schema undo that; if another build of hookseal made it, use "
        "that build, or move to a new database"
        if comparison.is_of_this_line
        else "A build before the first release made it, since it has no mark of this line, and no version upgrades it: "
        "use that build, or move to a new database"
    )
    return (
        f"the schema says revision {comparison.revision}, but it is not as this version makes it: {named}"
        + (f" and {plural(more, 'more difference', 'more differences')} (`hookseal db status`)" if more > 0 else "")
        + f". {cause} (docs/guide/upgrading.md)"
    )


async def _narrowed(connection: Connection) -> frozenset[str]:
    """Return the names of rights from which only something was taken that no delivery needs."""
    compared = await rights.compare(connection)
    needed = [*compared.above, *(right for right in compared.missing if right.stops_start)]
    return frozenset(map(_of_rights, compared.missing)).difference(map(_of_rights, needed))


def _of_rights(right: rights.Right) -> str:
    return f"rights of {right.role} to {right.object}"


def find_differences(
    expected: Mapping[str, str], found: Mapping[str, str], narrowed: Collection[str] = ()
) -> tuple[Difference, ...]:
    """Return what differs: tables, views, functions and types first, then what belongs to them, by name. Pure.

    Of a table or view that is missing or unknown, its columns, constraints, indexes, triggers and rights are not named.
    What is `narrowed` is allowed.
    """
    whole = {name for name in expected.keys() ^ found.keys() if name.startswith(_RELATIONS)}
    tables = {name.rpartition(".")[2] for name in whole}
    differences = []
    for name in sorted(expected.keys() | found.keys(), key=lambda name: (not name.startswith(_WHOLE), name)):
        if name in whole or _relation_of(name) not in tables:
            difference = _difference(name, expected.get(name), found.get(name), is_narrowed=name in narrowed)
            differences += [] if difference is None else [difference]
    return tuple(differences)


def _difference(name: str, expected: str | None, found: str | None, *, is_narrowed: bool) -> Difference | None:
    if found == expected:
        return None
    if found is None:
        return Difference(object=name, how="missing", is_allowed=is_narrowed)
    if expected is None:
        return Difference(object=name, how="unknown", is_allowed=name.startswith(_MAY_BE_ADDED))
    return Difference(object=name, how="differs", is_allowed=is_narrowed)


def _relation_of(name: str) -> str | None:
    """Return the table or view to which an object belongs, by its name."""
    of = _OF_A_RELATION.match(name)
    return None if of is None else of["column"] or of["part"] or of["rights"]


def digest(objects: Mapping[str, str]) -> str:
    """Return one digest over all of them, 16 hexadecimal digits."""
    text = "".join(f"{name}\0{objects[name]}\n" for name in sorted(objects))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def read(connection: Connection) -> dict[str, str]:
    """Return the digest of each object of the schema by its name. The settings of the session do not matter."""
    transaction = connection.transaction(readonly=not connection.is_in_transaction())
    await transaction.start()
    try:
        await connection.execute(_SETTINGS)
        return {row["name"]: row["digest"] for row in await _SQL.rows(connection, "objects", list(ROLES))}
    finally:
        await transaction.rollback()


def contents_of_file(states: Mapping[PlaintextColumn, Mapping[str, str]]) -> dict[str, dict[str, str | None]]:
    """Return what `fingerprints.json` has of one revision, from the objects in each state of the plaintext column."""
    with_column = states[PlaintextColumn.THERE]
    return {
        state.value: {
            name: objects.get(name)
            for name in sorted(with_column.keys() | objects.keys())
            if state is PlaintextColumn.THERE or objects.get(name) != with_column.get(name)
        }
        for state, objects in states.items()
    }


@cache
def _expected() -> Mapping[str, Mapping[PlaintextColumn, Mapping[str, str]]]:
    stored = json.loads(files("hookseal.postgres.schema").joinpath(FILE).read_text(encoding="utf-8"))
    return {
        at: {
            PlaintextColumn(state): {
                name: value for name, value in (of_state["there"] | changed).items() if value is not None
            }
            for state, changed in of_state.items()
        }
        for at, of_state in stored.items()
    }
