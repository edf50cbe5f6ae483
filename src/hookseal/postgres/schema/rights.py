"""Which rights each process needs, and what the roles of a database have above that or lack.

`rights.toml` declares them for each role, by the step that needs them.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from hookseal.postgres.pool import Connection, Executor, connected
from hookseal.postgres.statements import Statements

FILE: Final = "rights.toml"
EVERYBODY: Final = "public"

_SQL: Final = Statements("hookseal.postgres.schema", "rights.sql")
_EVERY: Final = "every table and view"
_PRIVILEGE: Final = re.compile(r"([A-Z]+)(?:\s*\(([^)]*)\))?")
# Without one of these rights nothing is delivered, or nothing published. Without another one, its own step fails.
_STEPS_OF_START: Final = frozenset({("hookseal_worker", "deliver"), ("hookseal_publisher", "publish")})

_Atom = tuple[str, str, str, str]  # role, object, privilege, and the column or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A right of a role to an object, or to some columns of it. `step`: what needs it, None if nothing does."""

    role: str
    object: str
    privilege: str
    columns: tuple[str, ...] = ()
    step: str | None = None

    def __str__(self) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.role}: {self.privilege}{columns} on {self.object}"

    @property
    def stops_start(self) -> bool:
        """Whether a worker does not start while this right is missing."""
        return (self.role, self.step) in _STEPS_OF_START


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The rights above the smallest set, and those of it that are missing."""

    above: tuple[Right, ...]
    missing: tuple[Right, ...]


def processes() -> Mapping[str, str]:
    """Return for each role the process that has it."""
    return {role: of_role["process"] for role, of_role in _declared().items()}


def declared() -> Iterator[Right]:
    """Yield each right that the table declares, as it stands there: no columns means all of them."""
    for role, of_role in _declared().items():
        for step, objects in of_role.items():
            if step == "process":
                continue
            for name, text in objects.items():
                for privilege, columns in _PRIVILEGE.findall(text):
                    named = tuple(re.split(r",\s*", columns.strip())) if columns else ()
                    yield Right(role=role, object=name, privilege=privilege, columns=named, step=step)


async def compare(source: Executor) -> Comparison:
    """Compare the rights of every role that the table names with it, also those that come by membership."""
    async with connected(source) as connection:
        return await _compared(connection, list(_declared()), needed=None)


async def above_of_login(source: Executor, roles: Collection[str]) -> tuple[str, tuple[Right, ...] | None]:
    """Return the name of the login of this connection, and its rights above those of these roles.

    There are None instead for a superuser and for a member of the owner of the schema, who may do everything.
    """
    async with connected(source) as connection:
        row = await _SQL.row(connection, "login")
        if row is None or row["is_owner"]:
            return ("" if row is None else row["name"]), None
        login: str = row["name"]
        return login, (await _compared(connection, [login], needed=roles)).above


async def _compared(connection: Connection, names: Sequence[str], *, needed: Collection[str] | None) -> Comparison:
    """Compare what these roles have: each with its own part of the table, or one login with those of `needed`."""
    columns: dict[str, Sequence[str]] = {
        row["object"]: row["columns"] for row in await _SQL.rows(connection, "columns")
    }
    expected: dict[_Atom, str | None] = {}
    for right in declared():
        if needed is None or right.role in needed:
            role = right.role if needed is None else names[0]
            expected |= dict.fromkeys(_atoms(role, right, columns), right.step)
    found = set[_Atom]()
    for row in await _SQL.rows(connection, "held", list(names)):
        of_columns = row["columns"] or [""]
        found |= {(row["role"], row["object"], row["privilege"], column) for column in of_columns}
    return Comparison(
        above=_joined(dict.fromkeys(found - expected.keys())),
        missing=_joined({atom: step for atom, step in expected.items() if atom not in found}),
    )


def _atoms(role: str, right: Right, columns: Mapping[str, Sequence[str]]) -> Iterator[_Atom]:
    """Yield the right for each column. A column that the database does not have is left out."""
    for name in columns if right.object == _EVERY else [right.object]:
        there = columns.get(name)
        if there is None or right.privilege == "DELETE":
            yield role, name, right.privilege, ""
        else:
            for column in right.columns or there:
                if column in there:
                    yield role, name, right.privilege, column


def _joined(atoms: Mapping[_Atom, str | None]) -> tuple[Right, ...]:
    joined: dict[tuple[str, str, str, str | None], list[str]] = {}
    for (role, name, privilege, column), step in sorted(atoms.items(), key=lambda item: item[0]):
        joined.setdefault((role, name, privilege, step), []).extend([column] if column else [])
    return tuple(
        Right(role=role, object=name, privilege=privilege, columns=tuple(of_columns), step=step)
        for (role, name, privilege, step), of_columns in joined.items()
    )


@cache
def _declared() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("hookseal.postgres.schema").joinpath(FILE).read_text(encoding="utf-8"))
