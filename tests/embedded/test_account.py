"""The account of the servers, and what it may reach."""

import os
import stat
from pathlib import Path

import pytest

from hookseal.embedded.folders import Account, _has_right, can_reach, can_use, for_servers

pytestmark = pytest.mark.req("OPS-08")

ANOTHER_ACCOUNT = Account(uid=54321, gid=54322)
READ, PASS = stat.S_IROTH, stat.S_IXOTH


def stat_of(mode: int, uid: int, gid: int) -> os.stat_result:
    """Return the stat result of a file with that mode, owner and group."""
    return os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("found", "wanted", "may"),
    [
        (stat_of(0o700, 54321, 1), READ | PASS, True),
        (stat_of(0o077, 54321, 54322), READ, False),
        (stat_of(0o070, 1, 54322), READ | PASS, True),
        (stat_of(0o707, 1, 54322), READ, False),
        (stat_of(0o001, 1, 1), PASS, True),
        (stat_of(0o001, 1, 1), READ | PASS, False),
        (stat_of(0o770, 1, 1), PASS, False),
    ],
)
def test_owner_group_and_others_have_their_bits(found: os.stat_result, wanted: int, may: bool) -> None:
    """The bits of the owner apply to the owner, those of the group to the group, and the others to all others."""
    assert may == _has_right(ANOTHER_ACCOUNT, found, wanted)


def test_a_private_folder_is_unreachable(tmp_path: Path) -> None:
    """Another account cannot reach a path in a private folder."""
    tmp_path.chmod(0o700)
    assert not can_reach(ANOTHER_ACCOUNT, tmp_path / "file")


def test_one_private_file_makes_a_tree_unusable(servers_folder: Path) -> None:
    """One private file makes a reachable tree unusable."""
    servers_folder.chmod(0o755)
    tree = servers_folder / "tree"
    tree.mkdir(mode=0o755)
    assert can_use(ANOTHER_ACCOUNT, tree)
    (tree / "file").touch(mode=0o600)
    assert not can_use(ANOTHER_ACCOUNT, tree)


def test_a_program_must_be_executable_for_the_account(servers_folder: Path) -> None:
    """The account must be able to execute what the owner can execute."""
    servers_folder.chmod(0o755)
    program = servers_folder / "program"
    program.touch()
    program.chmod(0o744)
    assert not can_use(ANOTHER_ACCOUNT, program)


def test_servers_never_run_as_root() -> None:
    """For root the servers use another account; for other users their own."""
    account = for_servers()
    assert (os.geteuid() == 0) == (account is not None)
    assert account is None or account.uid != 0
