"""The folders with the state of the servers: a private folder, and in it one for each server, owned by its account.

Root runs the servers as `nobody`. A folder that `nobody` cannot reach is not changed: the state is
then in a new folder under the temporary one, and a file `NAME.place` has its path.
"""

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hookseal.embedded.account import Account, can_reach
from hookseal.ground.errors import Unavailable

_PRIVATE: Final = 0o700
_PASSABLE: Final = 0o711  # others may reach their own folder in it, and list nothing


@contextmanager
def scratch(account: Account | None) -> Iterator[Path]:
    """Create a folder under the temporary one, which the account can reach, and remove it at the end of the block."""
    folder = _make_temporary(account)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def state_folder(folder: Path, name: str, account: Account | None) -> Path:
    """Return the folder for the state of the server `name`, created if absent, owned by the account.

    Raises `Unavailable` if it cannot be created.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        if account is None or can_reach(account, folder / name):
            return _make_owned(folder / name, account)
        place = folder / f"{name}.place"
        if place.exists() and _is_ours(known := Path(place.read_text(encoding="utf-8").rstrip("\n")), account):
            return known
        made = _make_owned(_make_temporary(account) / name, account)
        write_private(place, f"{made}\n")
    except OSError as error:
        raise Unavailable(f"cannot create a folder for {name}: {error}") from None
    return made


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, also if the file existed with another mode."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _make_temporary(account: Account | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hookseal-")).resolve()
    if account is None:
        return folder
    if not can_reach(account, folder):
        folder.rmdir()
        raise Unavailable(
            f"user nobody cannot reach the temporary folder {folder.parent}: set TMPDIR to a folder that it can reach"
        )
    folder.chmod(_PASSABLE)
    return folder


def _make_owned(folder: Path, account: Account | None) -> Path:
    if not folder.exists():
        folder.mkdir(mode=_PRIVATE)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    return folder


def _is_ours(folder: Path, account: Account) -> bool:
    """Return whether this folder is still the one that was created: anybody may write to the temporary folder."""
    try:
        above, found = folder.parent.lstat(), folder.lstat()
    except OSError:
        return False
    return above.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid


def load_or_create_password(file: Path) -> str:
    """Return the password in the file. If there is no file, create it with a new password."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text(encoding="utf-8")
