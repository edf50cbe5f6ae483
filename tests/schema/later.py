"""A later version of hookseal, with one more revision."""

import shutil
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


def upgrade() -> None:
    for statement in {statements!r}:
        op.execute(statement)
"""


def make_later(folder: Path, monkeypatch: pytest.MonkeyPatch, *statements: str) -> str:
    """Add a revision after the latest one, which runs these statements, to this process; return its name."""
    latest = revision.EXPECTED
    later = f"{int(latest) + 1:04}"
    scripts = folder / "later"
    shutil.copytree(upgrade._SCRIPTS, scripts)
    text = _REVISION.format(later=later, latest=latest, statements=statements)
    (scripts / "versions" / f"rev_{later}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(upgrade, "_SCRIPTS", str(scripts))
    monkeypatch.setattr(revision, "EXPECTED", later)
    return later
