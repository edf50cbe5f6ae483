"""Where the servers keep their state: a folder of ours, and in it one for each server, which it owns.

As root the servers are `nobody`. A folder that `nobody` cannot reach stays as it is: the state then
lies in a fresh folder under the temporary one, and a file `NAME.place` in ours says where.
"""

import os
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
_PASSABLE: Final = 0o711  # others may pass to what they own in it, and see nothing else


@contextmanager
def scratch(account: Account | None) -> Iterator[Path]:
    """Hold a fresh folder under the temporary one, which the account can reach; it is gone afterwards."""
    folder = _fresh(account)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def state_folder(folder: Path, name: str, account: Account | None) -> Path:
    """Return the folder for the state of the server `name`, made if absent, owned by the account.

    Raises `Unavailable` if it cannot be made.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        if account is None or can_reach(account, folder / name):
            return _owned(folder / name, account)
        place = folder / f"{name}.place"
        if place.exists() and _is_ours(known := Path(place.read_text(encoding="utf-8")), account):
            return known
        made = _owned(_fresh(account) / name, account)
        write_private(place, str(made))
    except OSError as error:
        raise Unavailable(f"cannot make a folder for {name}: {error}") from None
    return made


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whatever the mode of one that was there before."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _fresh(account: Account | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hookseal-")).resolve()
    if account is None:
        return folder
    if not can_reach(account, folder):
        folder.rmdir()
        raise Unavailable(f"user nobody cannot reach the temporary folder {folder.parent}: set TMPDIR to one it can")
    folder.chmod(_PASSABLE)
    return folder


def _owned(folder: Path, account: Account | None) -> Path:
    if not folder.exists():
        folder.mkdir(mode=_PRIVATE)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
    return folder


def _is_ours(folder: Path, account: Account) -> bool:
    """Tell whether it is still the folder that we made: anyone may write to the temporary one."""
    try:
        above, found = folder.parent.lstat(), folder.lstat()
    except OSError:
        return False
    return above.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid
