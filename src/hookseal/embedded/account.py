"""The account of the servers: this user, or `nobody` for root, as which PostgreSQL refuses to run."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from hookseal.ground.errors import Unavailable


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
        found = pwd.getpwnam("nobody")
    except KeyError:
        raise Unavailable(
            "embedded servers do not run as root, and there is no user nobody: use another user"
        ) from None
    return Account(uid=found.pw_uid, gid=found.pw_gid)


def can_reach(account: Account, path: Path) -> bool:
    """Return whether the account may enter every folder above `path`, by their modes."""
    return all(_has_right(account, parent.stat(), stat.S_IXOTH) for parent in path.resolve().parents)


def can_use(account: Account, path: Path) -> bool:
    """Return whether the account may reach and read all of `path`, and execute what its owner may execute."""
    return can_reach(account, path) and all(
        _has_all_rights(account, entry.stat()) for entry in (path, *path.rglob("*"))
    )


def _has_all_rights(account: Account, found: os.stat_result) -> bool:
    return _has_right(account, found, stat.S_IROTH | (stat.S_IXOTH if found.st_mode & stat.S_IXUSR else 0))


def _has_right(account: Account, found: os.stat_result, right: int) -> bool:
    if found.st_uid == account.uid:
        right <<= 6
    elif found.st_gid == account.gid:
        right <<= 3
    return found.st_mode & right == right
