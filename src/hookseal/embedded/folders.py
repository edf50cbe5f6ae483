"""The folders with the state of the servers: a private folder, and in it one for each server, owned by its account.

Another user may have laid a folder, a file or a link before, above all where everybody may write. So each access opens
the folder, checks what it opened, and reaches the file by the descriptor; no link is followed.

Root runs the servers as `nobody`. A folder that `nobody` cannot reach is not changed: the state is
then in a new folder under the temporary one, and a file `NAME.place` has its path.
"""

import os
import pwd
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hookseal.errors import Refused, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user and its one group."""

    uid: int
    gid: int


def for_servers() -> Account | None:
    """Return the account that the servers change to; None if they run as this user.

    Raises `Unavailable` if this user is root and the machine has no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Unavailable(
            "embedded servers do not run as root, and there is no user nobody: use another user"
        ) from None
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def can_reach(account: Account, path: Path) -> bool:
    """Return whether the account may enter every folder above `path`, by their modes."""
    return all(_has_right(account, parent.stat(), stat.S_IXOTH) for parent in path.resolve().parents)


def can_use(account: Account, path: Path) -> bool:
    """Return whether the account may reach and read all of `path`, and execute what its owner may execute."""
    return can_reach(account, path) and all(
        _has_all_rights(account, entry.stat()) for entry in (path, *path.rglob("*"))
    )


def _has_all_rights(account: Account, status: os.stat_result) -> bool:
    return _has_right(account, status, stat.S_IROTH | (stat.S_IXOTH if status.st_mode & stat.S_IXUSR else 0))


def _has_right(account: Account, status: os.stat_result, right: int) -> bool:
    if status.st_uid == account.uid:
        right <<= 6
    elif status.st_gid == account.gid:
        right <<= 3
    return status.st_mode & right == right


_PRIVATE: Final = 0o700
_PASSABLE: Final = 0o711  # others may reach their own folder in it, and list nothing
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


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

    Raises `Unavailable` if it cannot be created, `Refused` if what is there is not ours.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        if account is None or can_reach(account, folder / name):
            return _make_owned(folder / name, account)
        place = folder / f"{name}.place"
        with suppress(FileNotFoundError):
            if _is_ours(earlier := Path(read_private(place).decode().rstrip("\n")), account):
                return earlier
        state = _make_owned(_make_temporary(account) / name, account)
        write_private(place, f"{state}\n")
    except OSError as error:
        raise Unavailable(f"cannot create a folder for {name}: {error}") from None
    return state


@contextmanager
def opened(folder: Path, account: Account | None = None, *, is_private: bool = False) -> Iterator[int]:
    """Open a folder of this user, or of the account, and yield its descriptor.

    Files that are reached by the descriptor are in the folder that was checked, even if another user has put another
    folder in its place since then. Raises `Refused` if it is a link, belongs to another user, or if others may write to
    it; if it must be `private`, also if they may enter or list it. Raises `OSError` if it cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        if folder.is_symlink():
            raise _refusal(folder, "is a symbolic link") from None
        raise
    try:
        status = os.fstat(descriptor)
        _require_owner(folder, status, account)
        if is_private and status.st_mode & 0o077:
            raise Refused(f"other users may enter {folder}: run chmod 700 on it first")
        if status.st_mode & _WRITABLE:
            raise Refused(f"other users may write to {folder}: run chmod go-w on it first")
        yield descriptor
    finally:
        os.close(descriptor)


def require_own_files(folder: Path, descriptor: int) -> None:
    """Raise `Refused`, with the name, if a file in this open folder is a link, of another user, or open to others."""
    for name in sorted(os.listdir(descriptor)):
        with suppress(FileNotFoundError):
            _require_own(folder / name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))


def read_private(path: Path) -> bytes:
    """Return the content of a file of this user. Raises `Refused` as `require_own_files` does, and `OSError`."""
    with opened(path.parent) as folder:
        _require_own(path, os.stat(path.name, dir_fd=folder, follow_symlinks=False))
        with os.fdopen(os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            _require_own(path, os.fstat(file.fileno()))
            return file.read()


def create_private(path: Path) -> int:
    """Create an empty file that only this user may read; return its descriptor. It replaces whatever has this name.

    What is written goes to its end. A link is replaced, not followed. Raises `Refused` as `opened` does, and `OSError`.
    """
    with opened(path.parent) as folder:
        return _created(folder, path.name)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Write a file that only this user, or the account, may read. It replaces whatever has this name.

    A reader sees the old file or the whole new one. Raises `Refused` as `opened` does, and `OSError`.
    """
    with opened(path.parent, account) as folder:
        unfinished = f"{path.name}.new"
        with os.fdopen(_created(folder, unfinished), "w", encoding="utf-8") as file:
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
            file.write(text)
        os.replace(unfinished, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def _created(folder: int, name: str) -> int:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600, dir_fd=folder)


def _require_own(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _refusal(path, "is a symbolic link")
    _require_owner(path, status)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise _refusal(path, "has another name as well (a hard link)")
    if status.st_mode & _WRITABLE:
        raise Refused(f"other users may write to {path}: remove it, or run chmod go-w on it if its content is yours")


def _require_owner(path: Path, status: os.stat_result, account: Account | None = None) -> None:
    user = os.geteuid()
    if status.st_uid not in ({user} if account is None else {user, account.uid}):
        raise _refusal(path, f"belongs to user {_name_of(status.st_uid)}, not to user {_name_of(user)}")


def _refusal(path: Path, reason: str) -> Refused:
    return Refused(f"{path} {reason}: another user may have put it there; remove it, or use another folder")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


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
    with opened(folder.parent) as above, suppress(FileExistsError):
        os.mkdir(folder.name, mode=_PRIVATE, dir_fd=above)
        if account is not None:
            os.chown(folder.name, account.uid, account.gid, dir_fd=above, follow_symlinks=False)
    with opened(folder, account):  # what was there may not be ours
        return folder


def _is_ours(folder: Path, account: Account) -> bool:
    """Return whether this folder is still the one that was created: anybody may write to the temporary folder."""
    try:
        above, status = folder.parent.lstat(), folder.lstat()
    except OSError:
        return False
    return above.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid


def load_or_create_password(file: Path) -> str:
    """Return the password in the file. If there is no file, create it with a new password."""
    with suppress(FileNotFoundError):
        return read_private(file).decode()
    password = secrets.token_urlsafe(24)
    write_private(file, password)
    return password
