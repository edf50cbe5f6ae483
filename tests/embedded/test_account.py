"""Who the servers run as, and what that user may reach."""

import os
import stat
from pathlib import Path

import pytest

from hookseal.embedded.account import Account, _may, can_reach, can_use, for_servers

pytestmark = pytest.mark.req("OPS-08")

SOMEBODY = Account(uid=54321, gid=54322)
READ, PASS = stat.S_IROTH, stat.S_IXOTH


def of(mode: int, uid: int, gid: int) -> os.stat_result:
    """Return what the system says of a file with that mode, owner and group."""
    return os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("found", "wanted", "may"),
    [
        (of(0o700, 54321, 1), READ | PASS, True),
        (of(0o077, 54321, 54322), READ, False),
        (of(0o070, 1, 54322), READ | PASS, True),
        (of(0o707, 1, 54322), READ, False),
        (of(0o001, 1, 1), PASS, True),
        (of(0o001, 1, 1), READ | PASS, False),
        (of(0o770, 1, 1), PASS, False),
    ],
)
def test_modes(found: os.stat_result, wanted: int, may: bool) -> None:
    """The owner is judged by the owner's bits, the group by the group's, everybody else by the others'."""
    assert may == _may(SOMEBODY, found, wanted)


def test_private_folder_is_out_of_reach(tmp_path: Path) -> None:
    """What lies in a folder that only we may enter cannot be reached by another account."""
    tmp_path.chmod(0o700)
    assert not can_reach(SOMEBODY, tmp_path / "file")


def test_private_file_cannot_be_used(servers_folder: Path) -> None:
    """One private file in a tree that can be reached makes the tree unusable."""
    servers_folder.chmod(0o755)
    tree = servers_folder / "tree"
    tree.mkdir(mode=0o755)
    assert can_use(SOMEBODY, tree)
    (tree / "file").touch(mode=0o600)
    assert not can_use(SOMEBODY, tree)


def test_program_that_others_may_only_read_cannot_be_used(servers_folder: Path) -> None:
    """A program must be executable by the account if it is by its owner."""
    servers_folder.chmod(0o755)
    program = servers_folder / "program"
    program.touch()
    program.chmod(0o744)
    assert not can_use(SOMEBODY, program)


def test_servers_never_run_as_root() -> None:
    """As root the servers get another account; anybody else's run as themselves."""
    account = for_servers()
    assert (os.geteuid() == 0) == (account is not None)
    assert account is None or account.uid != 0
