"""`hookseal up` locks its folder, and a second terminal reads only the settings of a running stack."""

import os
import socket
import stat
from pathlib import Path

import pytest

from hookseal.demo import state
from hookseal.errors import Refused, Unavailable

ANOTHER = 54321  # a user id that no user has
SETTINGS = {"DATABASE_URL": "postgresql://127.0.0.1/db"}


def test_settings_are_readable_while_they_are_published(tmp_path: Path) -> None:
    """The settings can be read while they are published in a locked folder, and not after."""
    folder = tmp_path / "state"
    with state.lock_folder(folder):
        with pytest.raises(Unavailable, match="nothing is up"):
            state.settings(folder)
        with state.publish_settings(folder, SETTINGS):
            assert SETTINGS == state.settings(folder)
            assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
            assert {"up.json": 0o600, "up.lock": 0o600} == {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()
            }
        with pytest.raises(Unavailable, match="nothing is up"):
            state.settings(folder)


def test_a_locked_folder_is_refused(tmp_path: Path) -> None:
    """A locked folder is refused to another `up`, and is free afterwards."""
    with state.lock_folder(tmp_path / "state"):
        with pytest.raises(Refused, match="running in this folder already"), state.lock_folder(tmp_path / "state"):
            pytest.fail("taken twice")
        with state.lock_folder(tmp_path / "other"):
            pass
    with state.lock_folder(tmp_path / "state"):
        pass


def test_a_killed_ups_files_do_not_count(tmp_path: Path) -> None:
    """The files of a killed `up` do not count as running, and the next one removes them."""
    (tmp_path / "up.json").write_text('{"DATABASE_URL": "old"}')
    (tmp_path / "up.json").chmod(0o600)
    tmp_path.chmod(0o700)
    with pytest.raises(Unavailable, match="nothing is up"):
        state.settings(tmp_path)
    with state.lock_folder(tmp_path), pytest.raises(Unavailable, match="nothing is up"):
        state.settings(tmp_path)


def test_reading_creates_nothing(tmp_path: Path) -> None:
    """In a folder without `up` nothing runs, and reading creates nothing."""
    for folder in (tmp_path / "nothing", tmp_path / "file" / "state"):
        (tmp_path / "file").write_text("")
        with pytest.raises(Unavailable, match="nothing is up"):
            state.settings(folder)
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"a": 1}', b"\xff"])
def test_an_altered_file_is_named(content: bytes, tmp_path: Path) -> None:
    """A changed file is reported by its name, with what to do."""
    with state.lock_folder(tmp_path / "state"), state.publish_settings(tmp_path / "state", SETTINGS):
        (tmp_path / "state" / "up.json").write_bytes(content)
        with pytest.raises(Unavailable, match=r"up\.json was changed: stop `hookseal up` and start it again"):
            state.settings(tmp_path / "state")


def test_an_unusable_folder_is_refused(tmp_path: Path) -> None:
    """A folder that others may enter, a file in its place, and one that cannot be created are refused."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "file").write_text("mine")
    for name, expected in (
        ("open", "other users may enter .*: run chmod 700 on it first"),
        ("file", "cannot be used"),
        ("nowhere/state", "cannot be used"),
    ):
        with pytest.raises(Refused, match=expected), state.lock_folder(tmp_path / name):
            pytest.fail("taken")
    assert "mine" == (tmp_path / "file").read_text()


OURS = ("up.lock", "up.json", "receiver.port", "master.key", "postgres.password", "postgres.place", "worker.log")


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o770, 0o755])
def test_a_folder_that_others_may_enter_is_refused(mode: int, tmp_path: Path) -> None:
    """A right of the group or of all others is enough, for `up` and for `up env`."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    require_refusal(folder, f"^other users may enter {folder}: run chmod 700 on it first$")


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link in place of the folder is refused, and nothing is put into the folder to which it leads."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to("elsewhere")
    require_refusal(tmp_path / "state", f"^{tmp_path / 'state'} is a symbolic link: ")
    assert [] == list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", OURS)
def test_a_link_in_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    """A link is refused by its name, whether symbolic or hard, and the file to which it leads stays as it is."""
    folder, target = tmp_path / "state", tmp_path / "target"
    folder.mkdir(mode=0o700)
    target.write_text("1")
    target.chmod(0o644)  # whatever the umask is
    (folder / name).symlink_to(target)
    require_refusal_of_a_file(folder, f"^{folder / name} is a symbolic link: another user may have put it there; rem")
    (folder / name).unlink()
    (folder / name).hardlink_to(target)
    require_refusal_of_a_file(folder, f"^{folder / name} has another name as well")
    assert ("1", 0o644) == (target.read_text(), stat.S_IMODE(target.stat().st_mode))


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    """A file that others may write is refused: they may have it open since a time when they could enter the folder."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "master.key").touch()
    (folder / "master.key").chmod(mode)
    require_refusal_of_a_file(folder, f"^other users may write to {folder / 'master.key'}: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_what_another_user_laid_is_refused(tmp_path: Path) -> None:
    """A folder of another user is refused, also to root, and so is a file of theirs in a folder of ours."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "master.key").write_text("theirs")
    os.chown(folder / "master.key", ANOTHER, ANOTHER)
    require_refusal_of_a_file(folder, f"^{folder / 'master.key'} belongs to user {ANOTHER}, not to user root: ")
    os.chown(folder, ANOTHER, ANOTHER)
    require_refusal(folder, f"^{folder} belongs to user {ANOTHER}, not to user root: ")
    assert ["master.key"] == [path.name for path in folder.iterdir()]


def require_refusal(folder: Path, expected: str) -> None:
    """Fail unless `up` and `up env` refuse the folder."""
    with pytest.raises(Refused, match=expected):
        state.settings(folder)
    require_refusal_of_a_file(folder, expected)


def require_refusal_of_a_file(folder: Path, expected: str) -> None:
    """Fail unless `up` refuses the folder, because of what is in it."""
    with pytest.raises(Refused, match=expected), state.lock_folder(folder):
        pytest.fail("taken")


def test_a_folder_that_is_replaced_later_is_refused(tmp_path: Path) -> None:
    """Each access checks the folder that it uses: one that took the place of the locked one gets nothing."""
    folder, other = tmp_path / "state", tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "receiver.port").write_text("1")
    (other / "worker.log").write_text("1")
    with state.lock_folder(folder):
        folder.rename(tmp_path / "away")
        folder.symlink_to(other)
        for use in (state.receiver_port, state.keep_logs, publish):
            with pytest.raises(Refused, match="is a symbolic link"):
                use(folder)
    assert {"receiver.port", "worker.log"} == {path.name for path in other.iterdir()}


def publish(folder: Path) -> None:
    """Publish settings, as a running `up` does."""
    with state.publish_settings(folder, SETTINGS):
        pass


def test_an_unreadable_folder_is_reported(tmp_path: Path) -> None:
    """A folder that may not be read is reported as such."""
    (tmp_path / "up.lock").symlink_to("up.lock")  # refused even to root
    with pytest.raises(Unavailable, match=f"cannot be read \\({os.strerror(40)}\\)"):
        state.settings(tmp_path)


def test_the_receivers_port_is_chosen_once(tmp_path: Path) -> None:
    """The port is chosen once, in a private file; a damaged file leads to a new port."""
    port = state.receiver_port(tmp_path)
    assert port == state.receiver_port(tmp_path)
    [kept] = tmp_path.iterdir()
    assert 0o600 == stat.S_IMODE(kept.stat().st_mode)

    kept.write_text("no port")
    assert 0 < state.receiver_port(tmp_path)


def test_the_port_of_the_api_stays_while_it_is_free(tmp_path: Path) -> None:
    """If another process listens on the port of the run before, a new one is chosen, and kept."""
    first = state.api_port(tmp_path)
    assert first == state.api_port(tmp_path)
    with socket.create_server(("127.0.0.1", first)):
        second = state.api_port(tmp_path)
        assert second not in {0, first}
    assert second == state.api_port(tmp_path)


def test_the_logs_of_the_run_before_are_kept(tmp_path: Path) -> None:
    """The logs of the run before are kept in place of older ones; a log that is not there replaces none."""
    for run in ("first", "second"):
        (tmp_path / "worker.log").write_text(run)
        state.keep_logs(tmp_path)
    state.keep_logs(tmp_path)
    assert ["worker.log.1"] == [path.name for path in tmp_path.iterdir()]
    assert "second" == (tmp_path / "worker.log.1").read_text()


def test_a_shell_without_the_settings_gets_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell without the settings of the `up` of this folder, or with others, is advised to get them."""
    folder = tmp_path / "state"
    other = {"DATABASE_URL": "postgresql://127.0.0.1/other"}
    assert state.advice(folder, {}) is None
    with state.lock_folder(folder), state.publish_settings(folder, SETTINGS):
        for environ in ({}, other):
            assert "does not have the addresses" in (state.advice(folder, environ) or "")
        assert state.advice(folder, {"PATH": "/bin", **SETTINGS}) is None
    for environ in ({}, SETTINGS):
        assert "do not run: to use them, start `hookseal up`" in (state.advice(folder, environ) or "")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert state.advice(folder, {}) is None


@pytest.mark.req("UX-02")
def test_a_shell_with_settings_of_its_own_gets_no_advice(tmp_path: Path) -> None:
    """A shell with another key or other servers has not got its settings from the `up` of this folder."""
    folder = tmp_path / "state"
    ours = SETTINGS | {"SECRETS_MASTER_KEY_FILE": str(folder / "master.key"), "HOOKSEAL_CONCURRENCY": "1"}
    beside = {"SECRETS_MASTER_KEY_FILE": str(tmp_path / "state-old" / "master.key")}
    own = ({"SECRETS_MASTER_KEY": "a"}, beside, {"REDIS_URL": "redis://r.example"})
    with state.lock_folder(folder), state.publish_settings(folder, SETTINGS):
        assert [None] * 3 == [state.advice(folder, ours | each) for each in own]
    assert [None] * 3 == [state.advice(folder, ours | each) for each in own]
    assert "do not run" in (state.advice(folder, ours) or "")


def test_data_elsewhere_is_named() -> None:
    """Root's servers have their data in temporary folders: then it is said where; else there is nothing to say."""
    folder, temporary = Path("/srv/product/.hookseal"), Path("/temporary/hookseal-a/valkey")
    assert state.elsewhere(folder, [folder / "postgres", folder / "valkey"]) is None
    named = str(state.elsewhere(folder, [folder / "postgres", temporary]))
    assert [True, False] == [str(each) in named for each in (temporary, folder / "postgres")]
