"""The commits that a record may name: those before HEAD, as far as the clone knows."""

import subprocess
from pathlib import Path

import pytest

from tools.governance.history import unknown_commits

pytestmark = pytest.mark.req("OPS-07", part="first-form")

NOWHERE = "0" * 40


def _git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always")
    return subprocess.check_output(["git", "-C", str(root), *who, *arguments], text=True).strip()


def _commit(root: Path, message: str = "x") -> str:
    _git(root, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return _git(root, "rev-parse", "HEAD")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    (root := tmp_path / "tree").mkdir()
    _git(root, "init", "--quiet")
    return root


def test_only_head_and_its_ancestors_are_known(root: Path) -> None:
    """HEAD and its ancestors are known; another branch, an absent commit and a text that is no commit are not."""
    first, second = _commit(root), _commit(root)
    _git(root, "checkout", "--quiet", "-b", "aside", first)
    aside = _commit(root, "another")
    _git(root, "checkout", "--quiet", "--detach", second)

    no_commit = _git(root, "rev-parse", "HEAD^{tree}")
    assert {aside, NOWHERE, no_commit} == unknown_commits(root, [first, second, aside, NOWHERE, no_commit])


def test_without_history_no_commit_is_refused(root: Path, tmp_path: Path) -> None:
    """A shallow clone, a tree without git, one within another and one without a commit refuse no commit."""
    (empty := tmp_path / "empty").mkdir()
    _git(empty, "init", "--quiet")
    first, _ = _commit(root), _commit(root)
    _git(tmp_path, "clone", "--quiet", "--depth=1", root.as_uri(), "shallow")
    (within := root / "within").mkdir()
    (without := tmp_path / "without").mkdir()

    for place in (tmp_path / "shallow", within, without, empty):
        assert frozenset() == unknown_commits(place, [first, NOWHERE])
        assert {"HEAD", "--help"} == unknown_commits(place, ["HEAD", "--help", first])


def test_without_git_no_commit_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git nothing is known."""
    _commit(root)
    monkeypatch.setenv("PATH", "")

    assert frozenset() == unknown_commits(root, [NOWHERE])
