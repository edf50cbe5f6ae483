"""`hookseal db`: the schema of the database."""

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Final

import typer

from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import printable
from hookseal.cli.shared.runtime import Connection, connect, run, start
from hookseal.config.settings import Database, Part
from hookseal.errors import ConfigError, Unavailable, with_advice
from hookseal.postgres.schema import fingerprint, plaintext, revision
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

    After `migrate-secrets --finalize` it also removes the column of plaintext secrets. Exit 1 if the schema still
    differs from that of this version: somebody changed it, or another build made it. `db status` lists what differs.

    Example: hookseal db upgrade
    """
    before, after, schema = run(_upgrade(start(_NEEDS).database))
    text = f"already at revision {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}"
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

    It names each table, column, constraint, index, trigger, function, type and right that is missing, differs, or is
    unknown to this version. What an operator may add, a further index or rights of other roles, does not count.

    Example: hookseal db status
    """
    schema = run(_current(start(_NEEDS).database))
    up_to_date = schema.revision == revision.EXPECTED and not schema.wrong
    emit(
        {
            "revision": schema.revision,
            "expected": revision.EXPECTED,
            "up_to_date": up_to_date,
            "plaintext_column": schema.column,
            **schema.fields,
        },
        as_json=as_json,
        text=f"revision {schema.revision or 'none'}, this version needs {revision.EXPECTED}"
        + ("" if schema.advice is None else f": {schema.advice}")
        + _PLAINTEXT[schema.column]
        + schema.text,
    )
    raise typer.Exit(0 if up_to_date else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The schema of a database, and what to do if its revision is another one."""

    revision: str | None
    advice: str | None
    column: PlaintextColumn | None
    comparison: Comparison | None

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """The differences with which no worker starts."""
        return () if self.comparison is None else self.comparison.wrong

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
        if compared is None or compared.expected is None:
            return ""
        if not compared.differences:
            return f"\nfingerprint {compared.found}: the schema is as this version makes it"
        lines = [f"\nfingerprint {compared.found}, this version makes {compared.expected}"]
        lines += [f"  {printable(str(each))}{' (allowed)' if each.is_allowed else ''}" for each in compared.differences]
        return "\n".join([*lines, *self.problem])


async def _current(database: Database) -> _Found:
    async with connect(database) as connection:
        return _Found(
            revision=(at := await revision.current(connection)),
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
