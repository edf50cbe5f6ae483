"""Processes and files that a command leaves behind."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def processes_in(folder: Path) -> list[str]:
    """Return the programs whose working folder is the folder or below it, as those of servers and workers are."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(folder)):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


def files_in(folder: Path) -> list[str]:
    """Return the files in the folder."""
    return os.listdir(folder)  # noqa: PTH208 - the names alone
