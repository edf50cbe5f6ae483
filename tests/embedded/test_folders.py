"""The folders with the state of the servers."""

import os
from pathlib import Path

import pytest

from hookseal.embedded.folders import (
    Account,
    _is_ours,
    create_private,
    for_servers,
    load_or_create_password,
    read_private,
    scratch,
    state_folder,
    write_private,
)
from hookseal.errors import Refused, Unavailable

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


def test_writing_replaces_a_link(tmp_path: Path) -> None:
    """A link, symbolic or hard, is replaced by the new file; the file to which it led stays as it was."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "symbolic").symlink_to("target")
    (tmp_path / "hard").hardlink_to(tmp_path / "target")
    for name in ("symbolic", "hard"):
        write_private(tmp_path / name, "new")
        assert ("new", False) == ((tmp_path / name).read_text(), (tmp_path / name).is_symlink())
        (tmp_path / name).unlink()
    assert ["target"] == [path.name for path in tmp_path.iterdir()]
    assert "kept" == (tmp_path / "target").read_text()


def test_a_log_replaces_a_link(tmp_path: Path) -> None:
    """The log of a program is a new file: what stood there is not emptied, nor written to."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "log").symlink_to("target")
    os.close(create_private(tmp_path / "log"))
    assert ("kept", False) == ((tmp_path / "target").read_text(), (tmp_path / "log").is_symlink())


def test_reading_follows_no_link(tmp_path: Path) -> None:
    """A link is refused where a file of ours is read, and so is a folder that others may write to."""
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(Refused, match=r"link is a symbolic link: "):
        read_private(tmp_path / "link")
    tmp_path.chmod(0o720)
    for use in (read_private, create_private, load_or_create_password):
        with pytest.raises(Refused, match=f"^other users may write to {tmp_path}: run chmod go-w on it first$"):
            use(tmp_path / "target")


def test_a_link_in_place_of_a_servers_folder_is_refused(tmp_path: Path) -> None:
    """A link in place of the folder of a server is refused, and is not followed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "postgres").symlink_to("elsewhere")
    with pytest.raises(Refused, match=r"postgres is a symbolic link: "):
        state_folder(tmp_path, "postgres", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_not_read(tmp_path: Path) -> None:
    """Root reads no file of another user, and uses no folder of theirs for a server."""
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "valkey").mkdir()
    for name in ("file", "valkey"):
        os.chown(tmp_path / name, ANOTHER_ACCOUNT.uid, ANOTHER_ACCOUNT.gid)
    with pytest.raises(Refused, match="file belongs to user 54321, not to user root: "):
        read_private(tmp_path / "file")
    with pytest.raises(Refused, match="valkey belongs to user 54321, not to user root: "):
        state_folder(tmp_path, "valkey", None)


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    """State is read only from a folder that this user created and the servers' account owns."""
    state = tmp_path / "state"
    assert not _is_ours(state, US)
    state.mkdir()
    assert _is_ours(state, US)
    assert not _is_ours(state, ANOTHER_ACCOUNT)
    (tmp_path / "link").symlink_to(state)
    assert not _is_ours(tmp_path / "link", US)
