"""`hookseal db`: the schema of the database."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import groupby
from typing import Annotated, Final

import typer

from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import printable
from hookseal.cli.shared.runtime import Connection, connect, run, start
from hookseal.config.settings import Database, Part
from hookseal.errors import ConfigError, Unavailable, with_advice
from hookseal.postgres.schema import fingerprint, plaintext, revision, rights
from hookseal.postgres.schema.fingerprint import Comparison, Difference, explanation
from hookseal.postgres.schema.plaintext import PlaintextColumn

app: Final = typer.Typer(help="Create the tables, and check that they fit this version.")

_NEEDS: Final = frozenset({Part.DATABASE})
_EXTRA: Final = frozenset({"alembic", "sqlalchemy"})
_PLAINTEXT: Final = {
    None: "",
    PlaintextColumn.THERE: "\nplaintext secrets: allowed, until `hookseal migrate-secrets --finalize`",
    PlaintextColumn.FORBIDDEN: "\nplaintext secrets: forbidden; `hookseal db upgrade` removes their column",
    PlaintextColumn.GONE: "\nplaintext secrets: their column is gone",
}


@app.command()
def upgrade(*, as_json: Json = False) -> None:
    """Upgrade the database to the schema of this version. You may repeat it at any time.

    A migration on which a live worker may not run is refused (exit 5), naming the worker. A newer schema on which this
    version runs stays as it is, so the command may also be run for an older version to which you roll back.

    After `migrate-secrets --finalize` it also removes the column of plaintext secrets. Exit 1 if the schema still
    differs from that of this version: somebody changed it, or another build made it. `db status` lists what differs.

    Example: hookseal db upgrade
    """
    before, after, schema = run(_upgrade(start(_NEEDS).database))
    text = f"already at revision {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    if after > revision.EXPECTED:
        text += f", newer than this version's {revision.EXPECTED}, which runs on it: nothing was changed"
    if schema.column is not PlaintextColumn.THERE:
        text += _PLAINTEXT[schema.column]
    emit(
        {
            "revision": after,
            "previous_revision": before,
            "plaintext_column": schema.column,
            **schema.fields,
        },
        as_json=as_json,
        text="\n".join([text, *schema.problem]),
    )
    raise typer.Exit(1 if schema.wrong else 0)


@app.command()
def status(*, as_json: Json = False) -> None:
    """Compare the schema of the database with this version: exit 0 if they fit, else 1.

    A newer schema fits if it says that this version runs on it; an older one must be upgraded, also if this version
    runs on it until then (`runs`).

    It names each table, column, constraint, index, trigger, function, type and right that is missing, differs, or is
    unknown to this version. What an operator may add, a further index or rights of other roles, does not count.

    Example: hookseal db status
    """
    schema = run(_current(start(_NEEDS).database))
    up_to_date = schema.runs and (schema.revision or "") >= revision.EXPECTED
    emit(
        {
            "revision": schema.revision,
            "expected": revision.EXPECTED,
            "runs_from": schema.runs_from,
            "runs": schema.runs,
            "up_to_date": up_to_date,
            "plaintext_column": schema.column,
            **schema.fields,
        },
        as_json=as_json,
        text=f"revision {schema.revision or 'none'}, this version needs {revision.EXPECTED}"
        + schema.fit
        + _PLAINTEXT[schema.column]
        + schema.text,
    )
    raise typer.Exit(0 if up_to_date else 1)


@app.command()
def roles(
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Compare the roles of the database: exit 1 unless they have exactly these.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the smallest set of rights for each process, by its role and the step that needs them.

    With `--strict` it names each right of the database that is above the set or missing, also one that a role has as a
    member of another or as one of PUBLIC. A worker starts without what no delivery needs, but that step fails then; it
    does not start with a right above the set that was granted to a role of hookseal.

    Example: hookseal db roles --strict
    """
    compared = run(_roles(start(_NEEDS).database)) if strict else None
    needed = {"processes": rights.processes(), "rights": [_fields(each) for each in rights.declared()]}
    if compared is None:
        emit({**needed, "above": None, "missing": None}, as_json=as_json, text="\n".join(_lines()))
        return
    above, missing = compared.above, compared.missing
    lines = [f"above    {printable(str(each))}" for each in above]
    lines += [f"missing  {printable(str(each))}, for: {each.step}" for each in missing]
    emit(
        {**needed, "above": [_fields(each) for each in above], "missing": [_fields(each) for each in missing]},
        as_json=as_json,
        text="\n".join(lines) or "each role has the smallest set",
    )
    raise typer.Exit(1 if lines else 0)


def _fields(right: rights.Right) -> dict[str, object]:
    return {**asdict(right), "columns": list(right.columns)}


def _lines() -> Iterator[str]:
    """Yield the smallest sets for people."""
    for (role, step), of_step in groupby(rights.declared(), lambda each: (each.role, each.step)):
        yield f"{role}, to {step} ({rights.processes()[role]})"
        for each in of_step:
            columns = f" ({', '.join(each.columns)})" if each.columns else ""
            yield f"  {each.privilege}{columns} on {each.object}"


async def _roles(database: Database) -> rights.Comparison:
    async with connect(database) as connection:
        await revision.require(connection)
        return await rights.compare(connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The schema of a database, and what to do if this version does not run on it."""

    revision: str | None
    runs_from: str | None
    advice: str | None
    column: PlaintextColumn | None
    comparison: Comparison | None

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """The differences with which no worker starts."""
        return () if self.comparison is None else self.comparison.wrong

    @property
    def runs(self) -> bool:
        """Whether a worker of this version starts on it."""
        return self.advice is None and not self.wrong

    @property
    def fit(self) -> str:
        """What to do about its revision, or why this version runs on another one; "" for its own."""
        if self.advice is not None:
            return f": {self.advice}"
        if self.revision is None or self.revision == revision.EXPECTED:
            return ""
        if self.revision < revision.EXPECTED:
            return ", and also runs on this one: run `hookseal db upgrade`"
        return f": the schema is newer, and versions that know {self.runs_from} or newer run on it"

    @property
    def problem(self) -> list[str]:
        """What is wrong and what to do, as one line; none if nothing is wrong."""
        problem = None if self.comparison is None else explanation(self.comparison)
        return [] if problem is None else [problem]

    @property
    def fields(self) -> dict[str, object]:
        """The comparison for `--json`."""
        compared = self.comparison
        return {
            "fingerprint": None if compared is None else compared.found,
            "expected_fingerprint": None if compared is None else compared.expected,
            "differences": [] if compared is None else [asdict(each) for each in compared.differences],
        }

    @property
    def text(self) -> str:
        """The comparison for people."""
        compared = self.comparison
        if compared is None:
            return ""
        if compared.expected is None:
            return f"\nfingerprint {compared.found}: this version does not know what revision {compared.revision} makes"
        is_own = compared.revision == revision.EXPECTED
        makes = "this version makes" if is_own else f"revision {compared.revision} makes"
        if not compared.differences:
            return f"\nfingerprint {compared.found}: the schema is as {makes} it"
        lines = [f"\nfingerprint {compared.found}, {makes} {compared.expected}"]
        lines += [f"  {printable(str(each))}{' (allowed)' if each.is_allowed else ''}" for each in compared.differences]
        return "\n".join([*lines, *self.problem])


async def _current(database: Database) -> _Found:
    async with connect(database) as connection:
        return _Found(
            revision=(at := await revision.current(connection)),
            runs_from=None if at is None else await revision.runs_from(connection),
            advice="run `hookseal db upgrade`" if at is None else await _advice(connection),
            column=await plaintext.state(connection),
            comparison=await fingerprint.compare(connection),
        )


async def _advice(connection: Connection) -> str | None:
    try:
        await revision.require(connection)
    except ConfigError as error:
        return with_advice(error)
    return None


async def _upgrade(database: Database) -> tuple[str | None, str, _Found]:
    try:
        schema = import_module("hookseal.postgres.schema.upgrade")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise Unavailable(f"{package} is not installed: from the checkout, pip install '.[migrate]'") from None
    before = (await _current(database)).revision  # reports a server that does not answer at once, with its address
    after: str = await schema.upgrade(database.url)
    return before, after, await _current(database)
