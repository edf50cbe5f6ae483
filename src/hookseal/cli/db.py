"""`hookseal db`: the schema of the database."""

from importlib import import_module
from typing import Final

import typer

from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.runtime import connect, run, start
from hookseal.config.settings import Database, Part
from hookseal.ground.errors import Unavailable
from hookseal.postgres.schema import plaintext, revision
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

    After `migrate-secrets --finalize` it also removes the column of plaintext secrets.

    Example: hookseal db upgrade
    """
    before, after, column = run(_upgrade(start(_NEEDS).database))
    emit(
        {"revision": after, "previous_revision": before, "plaintext_column": column},
        as_json=as_json,
        text=(f"already at revision {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}")
        + ("" if column is PlaintextColumn.THERE else _PLAINTEXT[column]),
    )


@app.command()
def status(*, as_json: Json = False) -> None:
    """Compare the schema of the database with this version: exit 0 if they fit, else 1.

    Example: hookseal db status
    """
    found, column = run(_current(start(_NEEDS).database))
    up_to_date = found == revision.EXPECTED
    emit(
        {
            "revision": found,
            "expected": revision.EXPECTED,
            "up_to_date": up_to_date,
            "plaintext_column": column,
        },
        as_json=as_json,
        text=f"revision {found or 'none'}, this version needs {revision.EXPECTED}"
        + ("" if up_to_date else ": run `hookseal db upgrade`")
        + _PLAINTEXT[column],
    )
    raise typer.Exit(0 if up_to_date else 1)


async def _current(database: Database) -> tuple[str | None, PlaintextColumn | None]:
    async with connect(database) as connection:
        return await revision.current(connection), await plaintext.state(connection)


async def _upgrade(database: Database) -> tuple[str | None, str, PlaintextColumn | None]:
    try:
        schema = import_module("hookseal.postgres.schema.upgrade")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise Unavailable(f"{package} is not installed: from the checkout, pip install '.[migrate]'") from None
    before, _ = await _current(database)  # reports a server that does not answer at once, with its address
    after: str = await schema.upgrade(database.url)
    return before, after, (await _current(database))[1]
