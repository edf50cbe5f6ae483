"""The files of `hookseal up` that a second terminal reads: a private folder (0700) with private files (0600)."""

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hookseal.config.keys import MASTER_KEY, WRAPPED_KEY
from hookseal.embedded.folders import opened, read_private, require_own_files, write_private
from hookseal.embedded.server import HOST, ports
from hookseal.errors import Refused, Unavailable

_FILE: Final = "up.json"
_RECEIVER_PORT: Final = "receiver.port"
_API_PORT: Final = "api.port"
_OF_TOKEN: Final = "api.token"  # noqa: S105 -- the name of a file
_LOCK: Final = "up.lock"
_LOGS: Final = ("worker.log", "api.log", "postgres.log", "valkey.log")
# Of the settings that `up env` gives a shell, those that show of which installation they are, in each of their forms.
_GIVEN: Final = (
    *(MASTER_KEY, f"{MASTER_KEY}_FILE", WRAPPED_KEY, f"{WRAPPED_KEY}_FILE"),
    *("DATABASE_URL", "HOOKSEAL_DATABASE_URL", "REDIS_URL", "HOOKSEAL_REDIS_URL", "HOOKSEAL_HEALTH_URL"),
)
_OTHER_SETTINGS: Final = (
    'this shell does not have the addresses of the `hookseal up` that runs in this folder: eval "$(hookseal up env)" '
    "sets them"
)
_NOT_UP: Final = (
    "the servers of `hookseal up` in this folder do not run: to use them, start `hookseal up`, and then "
    'eval "$(hookseal up env)" sets their addresses'
)


def default_folder() -> Path:
    """Return the folder of an `up` that runs in the current directory."""
    return Path(".hookseal").absolute()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create the folder if absent, and lock it for this `up`, until the end of the block or of the process.

    Raises `Refused` if another `up` has locked it, if other users may enter it, if it or a file in it belongs to
    another user or is a link, or if it cannot be created.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        with opened(folder, is_private=True) as inside:
            require_own_files(folder, inside)
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=inside)
    except OSError as error:
        raise Refused(f"{folder} cannot be used ({error.strerror}): run `hookseal up` in another folder") from None
    try:
        if not _try_lock(lock, fcntl.LOCK_EX):
            raise Refused("`hookseal up` is running in this folder already: stop it first, or use another folder")
        _remove_settings(folder)  # left by a killed `up`
        yield
    finally:
        os.close(lock)


@contextmanager
def publish_settings(folder: Path, settings: dict[str, str]) -> Iterator[None]:
    """Make `up env` print these settings for the length of the block."""
    write_private(folder / _FILE, json.dumps(settings))
    try:
        yield
    finally:
        _remove_settings(folder)


def _remove_settings(folder: Path) -> None:
    with opened(folder) as inside, suppress(FileNotFoundError):
        os.unlink(_FILE, dir_fd=inside)


def keep_logs(folder: Path) -> None:
    """Rename the logs of the run before, each to NAME.log.1, in place of the one that was kept before.

    The error of that run may have named one of them.
    """
    with opened(folder) as inside:
        for name in _LOGS:
            with suppress(FileNotFoundError):
                os.replace(name, f"{name}.1", src_dir_fd=inside, dst_dir_fd=inside)


def elsewhere(folder: Path, of_servers: Iterable[Path]) -> str | None:
    """Return where the data of the servers is, and when it goes; None if all of it is in the folder."""
    others = [str(each) for each in of_servers if not each.is_relative_to(folder)]
    if not others:
        return None
    return (
        f"the servers of root run as the user nobody, so the data is in {' and '.join(others)}. Many machines empty "
        "such a folder when they restart: to keep the data, start `hookseal up` as another user, in another folder"
    )


def receiver_port(folder: Path) -> int:
    """Return the port of the receiver. It stays the same, since earlier endpoints send to it."""
    place = folder / _RECEIVER_PORT
    return _kept_port(place) or _new_port(place)


def api_port(folder: Path) -> int:
    """Return the port of the API: that of the run before, or a new one if another process listens on it now."""
    place = folder / _API_PORT
    port = _kept_port(place)
    return port if port is not None and _is_free(port) else _new_port(place)


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _kept_port(place: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(read_private(place))
    return None


def _new_port(place: Path) -> int:
    port = next(ports(None))
    write_private(place, str(port))
    return port


def kept_token(folder: Path) -> str | None:
    """Return the token of the API that an earlier run wrote, None if none did."""
    with suppress(OSError, ValueError):
        return read_private(folder / _OF_TOKEN).decode("ascii").strip()
    return None


def keep_token(folder: Path, token: str) -> None:
    """Write the token for the next runs."""
    write_private(folder / _OF_TOKEN, token + "\n")


def settings(folder: Path) -> dict[str, str]:
    """Return the settings of the running stack.

    Raises `Unavailable` if none runs, or if its file was changed, `Refused` if the folder or the file is not ours: a
    shell evaluates what is returned.
    """
    text = _text(folder)
    if text is None:
        raise Unavailable("nothing is up in this folder: run `hookseal up` here, in another terminal")
    with suppress(ValueError):
        stored = json.loads(text)
        if isinstance(stored, dict) and all(isinstance(value, str) for value in stored.values()):
            return stored
    raise Unavailable(f"{folder / _FILE} was changed: stop `hookseal up` and start it again, which rewrites the file")


def advice(folder: Path, environ: Mapping[str, str]) -> str | None:
    """Return how a shell with this environment gets the settings of the `up` of this folder.

    Returns None if it has them or those of another installation, and in a folder in which this user never started an
    `up`.
    """
    if not (folder / _LOCK).exists() or _has_others(folder, environ):
        return None
    try:
        running = settings(folder)
    except Refused:
        return None  # another user's folder may name other servers
    except Unavailable:
        return _NOT_UP
    return None if all(environ.get(name) == value for name, value in running.items()) else _OTHER_SETTINGS


def _has_others(folder: Path, environ: Mapping[str, str]) -> bool:
    """Return whether this environment has settings that no `up` of the folder gave it: another key, or another host."""
    given = {name: value for name in _GIVEN if (value := environ.get(name))}
    return any(
        not Path(value).is_relative_to(folder) if name.startswith(MASTER_KEY) else HOST not in value
        for name, value in given.items()
    )


def _text(folder: Path) -> bytes | None:
    """Return what the running `up` published, None if none runs or it has published nothing yet."""
    try:
        with opened(folder, is_private=True) as inside:
            lock = os.open(_LOCK, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=inside)
        try:
            return None if _try_lock(lock, fcntl.LOCK_SH) else read_private(folder / _FILE)
        finally:
            os.close(lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(f"{folder} cannot be read ({error.strerror})") from None


def _try_lock(lock: int, kind: int) -> bool:
    """Try to lock, and return whether the lock was free. It is released when it is closed, or this process ends."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
