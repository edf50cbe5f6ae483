"""Who the servers run as: ourselves, or `nobody` where we are root (PostgreSQL refuses to run as root)."""

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
    """Return the account that the servers change to; None if they run as ourselves.

    Raises `Unavailable` if we are root and this machine has no user `nobody`.
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
    """Tell whether the account may pass through every folder above `path`, by their modes."""
    return all(_may(account, parent.stat(), stat.S_IXOTH) for parent in path.resolve().parents)


def can_use(account: Account, path: Path) -> bool:
    """Tell whether the account may reach and read all of `path`, and run what its owner may run."""
    return can_reach(account, path) and all(_may_use(account, entry.stat()) for entry in (path, *path.rglob("*")))


def _may_use(account: Account, found: os.stat_result) -> bool:
    return _may(account, found, stat.S_IROTH | (stat.S_IXOTH if found.st_mode & stat.S_IXUSR else 0))


def _may(account: Account, found: os.stat_result, wanted: int) -> bool:
    if found.st_uid == account.uid:
        wanted <<= 6
    elif found.st_gid == account.gid:
        wanted <<= 3
    return found.st_mode & wanted == wanted
