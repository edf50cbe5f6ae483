"""What `hookseal up` leaves for a second terminal: a folder of its own (0700), files of its own (0600)."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import write_private
from hookseal.embedded.server import ports
from hookseal.ground.errors import Refused, Unavailable

_FILE: Final = "up.json"
_PORT: Final = "receiver.port"
_LOCK: Final = "up.lock"


def here() -> Path:
    """Return the folder of an `up` that is run in the folder of this process."""
    return Path(".hookseal").absolute()


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Hold the folder, made if absent, for this `up` alone; however this process ends, it is free afterwards.

    Raises `Refused` if another `up` holds it, if others may enter it, or if it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            raise Refused(f"others may enter {folder}: chmod 700 it first")
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refused(f"{folder} cannot be used ({error.strerror}): work in another folder") from None
    try:
        if not _locked(lock, fcntl.LOCK_EX):
            raise Refused("`hookseal up` is running in this folder already: end it first, or work in another folder")
        (folder / _FILE).unlink(missing_ok=True)  # of one that was killed
        yield
    finally:
        os.close(lock)


@contextmanager
def published(folder: Path, settings: dict[str, str]) -> Iterator[None]:
    """Have `up env` print these settings for the length of the block."""
    write_private(folder / f"{_FILE}.new", json.dumps(settings))
    (folder / f"{_FILE}.new").replace(folder / _FILE)  # at once, so that nobody reads a half
    try:
        yield
    finally:
        (folder / _FILE).unlink(missing_ok=True)


def receiver_port(folder: Path) -> int:
    """Return the port of the receiver, the same every time: endpoints that were added before point at it."""
    place = folder / _PORT
    with suppress(OSError, ValueError):
        return int(place.read_text(encoding="ascii"))
    port = next(ports(None))
    write_private(place, str(port))
    return port


def settings(folder: Path) -> dict[str, str]:
    """Return the settings of the stack that is up. Raises `Unavailable` if none is, or its file was spoilt."""
    text = _text(folder)
    if text is None:
        raise Unavailable("nothing is up in this folder: run `hookseal up` here, in another terminal")
    with suppress(ValueError):
        stored = json.loads(text)
        if isinstance(stored, dict) and all(isinstance(value, str) for value in stored.values()):
            return stored
    raise Unavailable(f"{folder / _FILE} was changed: end `hookseal up` and start it again, which writes it anew")


def _text(folder: Path) -> bytes | None:
    """Return what the `up` that holds the folder published, None if none does or it has not yet."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDONLY)
        try:
            return None if _locked(lock, fcntl.LOCK_SH) else (folder / _FILE).read_bytes()
        finally:
            os.close(lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(f"{folder} cannot be read ({error.strerror})") from None


def _locked(lock: int, kind: int) -> bool:
    """Tell whether the lock was free; it is held until it is closed, or this process ends."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
