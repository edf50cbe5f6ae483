"""The folders with the state of the servers."""

import os
from pathlib import Path

import pytest

from hookseal.embedded.account import Account, for_servers
from hookseal.embedded.folders import _is_ours, scratch, state_folder, write_private
from hookseal.ground.errors import Unavailable

pytestmark = pytest.mark.req("OPS-08")

US = Account(uid=os.geteuid(), gid=os.getegid())
ANOTHER_ACCOUNT = Account(uid=54321, gid=54322)


def test_a_temporary_folder_is_removed() -> None:
    """A temporary folder is removed with its content."""
    with scratch(None) as folder:
        (folder / "state").mkdir()
        assert 0o700 == folder.stat().st_mode & 0o777
    assert not folder.exists()


def test_a_state_folder_is_private(tmp_path: Path) -> None:
    """Created folders are private."""
    state = state_folder(tmp_path / "a" / "b", "postgres", None)
    assert tmp_path / "a" / "b" / "postgres" == state
    assert [0o700, 0o700] == [folder.stat().st_mode & 0o777 for folder in (state, state.parent)]


def test_reachable_state_is_in_the_given_folder(servers_folder: Path) -> None:
    """State is in the given folder if the servers can reach it, and belongs to their account."""
    account = for_servers()
    state = state_folder(servers_folder, "valkey", account)
    assert servers_folder / "valkey" == state
    assert (account.uid if account else os.geteuid()) == state.stat().st_uid


def test_a_failed_folder_has_its_reason(tmp_path: Path) -> None:
    """A folder that cannot be created is reported with the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot create a folder for postgres"):
        state_folder(tmp_path / "file" / "state", "postgres", None)


def test_only_the_owner_reads_a_private_file(tmp_path: Path) -> None:
    """Only the owner can read a private file, even if others could read it before."""
    (tmp_path / "file").touch(mode=0o644)
    write_private(tmp_path / "file", "text")
    assert "text" == (tmp_path / "file").read_text()
    assert 0o600 == (tmp_path / "file").stat().st_mode & 0o777


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    """State is read only from a folder that this user created and the servers' account owns."""
    state = tmp_path / "state"
    assert not _is_ours(state, US)
    state.mkdir()
    assert _is_ours(state, US)
    assert not _is_ours(state, ANOTHER_ACCOUNT)
    (tmp_path / "link").symlink_to(state)
    assert not _is_ours(tmp_path / "link", US)
