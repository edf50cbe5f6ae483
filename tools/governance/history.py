"""Finds commits that are not in the history of the tree: others must be able to repeat a recorded measurement."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def unknown_commits(root: Path, commits: Iterable[str]) -> frozenset[str]:
    """Return the names that are no commit in the history of HEAD, as far as this clone knows.

    Without git, or in a clone without the whole history, only names that cannot be a commit's are returned.
    """
    named = set(commits)
    knows_all = _is_whole(root)
    return frozenset(one for one in named if not _COMMIT.fullmatch(one) or (knows_all and not _is_before(root, one)))


def _is_whole(root: Path) -> bool:
    found = _git(root, "rev-parse", "--show-toplevel", "--is-shallow-repository", "--verify", "HEAD^{commit}")
    if found is None or found.returncode != 0:
        return False
    top, is_shallow, *_ = found.stdout.splitlines()
    return Path(top).resolve() == root.resolve() and is_shallow == "false"


def _is_before(root: Path, commit: str) -> bool:
    found = _git(root, "merge-base", "--is-ancestor", commit, "HEAD")
    return found is not None and found.returncode == 0


def _git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False, text=True)
    except OSError:  # there is none
        return None
