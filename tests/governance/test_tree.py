"""The identity of a tree."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.governance.tree import identity

pytestmark = pytest.mark.req("OPS-07", part="first-form")


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / ".gitignore").write_text("/.venv/\n__pycache__/\n*.py[co]\n")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "src" / "a.py").write_text("a = 2\n"),
        lambda tree: (tree / "src" / "b.py").write_text(""),
        lambda tree: (tree / "src" / "a.py").rename(tree / "src" / "c.py"),
        lambda tree: (tree / "src" / "a.py").unlink(),
        lambda tree: (tree / "run").chmod(0o755),
        lambda tree: (tree / "link").symlink_to("run"),
    ],
    ids=["content", "new file", "name", "deletion", "mode", "link"],
)
@pytest.mark.parametrize("with_git", [True, False])
def test_every_change_is_seen(tree: Path, with_git: bool, change: Callable[[Path], object]) -> None:
    """Another content, name, mode or set of files gives another identity."""
    if with_git:
        _git_init(tree)
    before = identity(tree)
    change(tree)

    assert before != identity(tree)


def test_ignored_files_do_not_count(tree: Path) -> None:
    """Ignored files and the generated page do not change the identity, and it is the same without git."""
    before = identity(tree)
    for name in (".venv/lib/x.py", "src/__pycache__/a.cpython-311.pyc", "src/b.pyc", "docs/TRACEABILITY.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    walked = identity(tree)
    _git_init(tree)

    assert (before, before) == (walked, identity(tree))


def _git_init(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "--all"], check=True)
