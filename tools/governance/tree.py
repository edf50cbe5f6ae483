"""The identity of a tree: one digest over every file that git tracks or would track."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

# It is written from the report, which names the tree: as part of the identity, it would invalidate the report.
GENERATED: Final = frozenset({"docs/TRACEABILITY.md", "docs/proof/providers.md"})


def identity(root: Path) -> str:
    """Return a digest of names, modes and contents; the same for the same tree, with or without git."""
    digest = hashlib.sha256()
    for name in sorted(set(names(root)) - GENERATED):
        path = root / name
        if path.is_symlink():
            mode, content = "link", os.fsencode(path.readlink())
        elif path.is_file():
            mode, content = "run" if os.access(path, os.X_OK) else "file", path.read_bytes()
        else:
            continue  # tracked, but deleted from the work tree
        digest.update(f"{name}\0{mode}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()


def names(root: Path) -> list[str]:
    """Return the files that git tracks or would track, relative to the root; the same with or without git."""
    return _tracked(root) or list(_walked(root))


def _tracked(root: Path) -> list[str]:
    """Return what git lists, or nothing outside a work tree or without git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


def _walked(root: Path) -> Iterator[str]:
    """Yield what git would list, by the simple patterns of this repository's `.gitignore`."""
    ignored = [".git/"]
    if (root / ".gitignore").is_file():
        ignored += [line for line in (root / ".gitignore").read_text(encoding="utf-8").splitlines() if line]
    for folder, subfolders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        subfolders[:] = [name for name in subfolders if not _is_ignored(place / name, ignored)]
        yield from (str(place / name) for name in files if not _is_ignored(place / name, ignored))


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    at_root, anywhere = f"/{path}", path.name
    return any(fnmatch(at_root if p.startswith("/") else anywhere, p.rstrip("/")) for p in patterns)
