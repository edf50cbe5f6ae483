"""`hookseal db`: the schema of the database."""

from importlib import import_module
from typing import Final

import typer

from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import connect, run, start
from hookseal.config.settings import Database, Part
from hookseal.ground.errors import Unavailable
from hookseal.schema import revision

app: Final = typer.Typer(help="Create and compare the tables.")

_NEEDS: Final = frozenset({Part.DATABASE})
_EXTRA: Final = frozenset({"alembic", "sqlalchemy"})


@app.command()
def upgrade(*, as_json: Json = False) -> None:
    """Bring the database to the schema of this version. Safe to repeat."""
    before, after = run(_upgrade(start(_NEEDS).database))
    emit(
        {"revision": after, "previous_revision": before},
        as_json=as_json,
        text=f"already at revision {after}" if before == after else f"upgraded from {before or 'nothing'} to {after}",
    )


@app.command()
def status(*, as_json: Json = False) -> None:
    """Say whether the database has the schema of this version: exit 0 if so, else 1."""
    found = run(_current(start(_NEEDS).database))
    up_to_date = found == revision.EXPECTED
    emit(
        {"revision": found, "expected": revision.EXPECTED, "up_to_date": up_to_date},
        as_json=as_json,
        text=f"revision {found or 'none'}, this version needs {revision.EXPECTED}"
        + ("" if up_to_date else ": run `hookseal db upgrade`"),
    )
    raise typer.Exit(0 if up_to_date else 1)


async def _current(database: Database) -> str | None:
    async with connect(database) as connection:
        return await revision.current(connection)


async def _upgrade(database: Database) -> tuple[str | None, str]:
    try:
        schema = import_module("hookseal.schema.upgrade")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise Unavailable(f"{package} is not installed: from the checkout, pip install '.[migrate]'") from None
    before = await _current(database)  # says at once, and by name, what does not answer
    after: str = await schema.upgrade(database.url)
    return before, after
