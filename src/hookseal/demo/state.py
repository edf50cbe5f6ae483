"""What `hookseal up` leaves for a second terminal: a folder of its own (0700), files of its own (0600)."""

import json
import os
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import write_private
from hookseal.ground.errors import Refused, Unavailable

FOLDER: Final = Path(".hookseal").absolute()
_FILE: Final = "up.json"


def take(folder: Path) -> None:
    """Make the folder, for us alone. Raises `Refused` if one `up` runs on it already, or others may enter it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        raise Refused(f"others may enter {folder}: chmod 700 it first")
    if _running(folder) is not None:
        raise Refused("`hookseal up` is running in this folder already: end it first, or work in another folder")


def publish(folder: Path, settings: dict[str, str]) -> None:
    """Have `up env` print these settings for as long as this process lives."""
    write_private(folder / _FILE, json.dumps({"pid": os.getpid(), "settings": settings}))


def withdraw(folder: Path) -> None:
    """Have `up env` say that nothing is up."""
    (folder / _FILE).unlink(missing_ok=True)


def settings(folder: Path) -> dict[str, str]:
    """Return the settings of the stack that is up. Raises `Unavailable` if none is."""
    found = _running(folder)
    if found is None:
        raise Unavailable("nothing is up in this folder: run `hookseal up` here, in another terminal")
    return found


def _running(folder: Path) -> dict[str, str] | None:
    try:
        stored = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        os.kill(stored["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    found: dict[str, str] = stored["settings"]
    return found
