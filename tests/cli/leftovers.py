"""What a command leaves behind."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def processes_in(folder: Path) -> list[str]:
    """Return the programs that work in the folder or below it: our servers and workers do, to their end."""
    if sys.platform != "linux":
        return []
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str((entry / "cwd").readlink()).startswith(str(folder)):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


def files_in(folder: Path) -> list[str]:
    """Return what is in the folder."""
    return os.listdir(folder)  # noqa: PTH208 - the names alone
