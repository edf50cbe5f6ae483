"""A later version of hookseal, with one more revision: in this process, or as a program of its own."""

import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from hookseal.postgres.schema import revision, upgrade

_REVISION: Final = """
from alembic import op

revision = "{later}"
down_revision = "{latest}"
branch_labels = None
depends_on = None
runs_from = "{runs_from}"


def upgrade() -> None:
    for statement in {statements!r}:
        op.execute(statement)
"""
_SCHEMA: Final = "postgres/schema"
NO_EDITS: Final[Mapping[str, tuple[str, str]]] = {}
# What a migration may do to tables in use, and which locks it takes; the second statement rewrites its table.
IN_USE: Final = (
    "ALTER TABLE hookseal.deliveries ADD COLUMN note text",
    "ALTER TABLE hookseal.events ADD COLUMN size integer GENERATED ALWAYS AS (octet_length(body)) STORED",
    "CREATE INDEX deliveries_noted ON hookseal.deliveries (note) WHERE note IS NOT NULL",
    "ALTER TABLE hookseal.endpoints ALTER COLUMN timeout_ms SET DEFAULT 6000",
    "CREATE TABLE hookseal.notes (tenant_id text PRIMARY KEY)",
    "GRANT SELECT ON hookseal.notes TO hookseal_worker",
)


def make_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *statements: str, runs_from: str = revision.EXPECTED
) -> str:
    """Add a revision after the latest one, which runs these statements, to this process; return its name."""
    scripts = folder / "later"
    shutil.copytree(upgrade._SCRIPTS, scripts)
    later = _add_revision(scripts, statements, runs_from)
    monkeypatch.setattr(upgrade, "_SCRIPTS", str(scripts))
    monkeypatch.setattr(revision, "EXPECTED", later)
    return later


def later_program(folder: Path, *statements: str, edits: Mapping[str, tuple[str, str]] = NO_EDITS) -> Path:
    """Write the program of a later version, whose revision runs these statements; return its folder, a PYTHONPATH.

    It also runs on the latest revision of this version, and this version runs on its revision. `edits` has, by file,
    a text that occurs in it once, and what the later version has instead.
    """
    package = folder / "hookseal"
    # With what is compiled, so that it starts as fast; another test may be writing such a file.
    shutil.copytree(str(files("hookseal")), package, ignore=shutil.ignore_patterns("*.pyc.*"))
    later = _add_revision(package / _SCHEMA, statements, revision.EXPECTED)
    own = (f'EXPECTED: Final = "{revision.EXPECTED}"', f'EXPECTED: Final = "{later}"')
    for name, (old, new) in {f"{_SCHEMA}/revision.py": own, **edits}.items():
        text = (package / name).read_text(encoding="utf-8")
        assert 1 == text.count(old), name
        (package / name).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def _add_revision(scripts: Path, statements: tuple[str, ...], runs_from: str) -> str:
    latest = revision.EXPECTED
    later = f"{int(latest) + 1:04}"
    text = _REVISION.format(later=later, latest=latest, statements=statements, runs_from=runs_from)
    (scripts / "versions" / f"rev_{later}.py").write_text(text, encoding="utf-8")
    return later
