"""Secrets are read from files, and written to files, that only their owner may read."""

import base64
import os
from pathlib import Path

import pytest

from hookseal.cli.shared.secret_files import SecretOutput, _write, read_secret_text
from hookseal.errors import Conflict, HooksealError, InDoubt, Malformed, Refused
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.material import SecretMaterial
from tests.secrets.samples import signing_secret


def whsec(size: int) -> str:
    """Return a signing secret of that many bytes."""
    return "whsec_" + base64.b64encode(bytes(range(100, 100 + size))).decode()


def private(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """Write a file with this mode and return its path."""
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("size", [24, 64])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_is_read_unchanged(size: int, ending: str, tmp_path: Path) -> None:
    """A secret is read unchanged, except for one trailing newline."""
    assert whsec(size) == read_secret_text(private(tmp_path, (whsec(size) + ending).encode()))


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        whsec(24).encode() + b"\n\n",
        b" " + whsec(24).encode(),
        whsec(23).encode(),
        whsec(65).encode(),
        whsec(24).encode()[:-1],
        whsec(24).replace("whsec_", "whsk_").encode(),
        whsec(24).removeprefix("whsec_").encode(),
        b"whsec_" + b"\xff" * 32,
        b"whsec_" + b"!" * 32,
        b"whsec_" + b"A" * 5_000,
    ],
)
def test_an_invalid_secret_is_not_repeated(content: bytes, tmp_path: Path) -> None:
    """An invalid signing secret is malformed, and the error does not repeat it."""
    with pytest.raises(Malformed) as caught:
        signing_secret(read_secret_text(private(tmp_path, content)), Scheme.STANDARD)
    assert caught.value.field in ("secret", "secret_file")
    assert caught.value.__cause__ is None
    assert str(caught.value).startswith(("the secret must be", "signing secret must be", "the file may hold at most"))


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    """A file that any other user may read or write is refused, and the error says how to correct it."""
    path = private(tmp_path, whsec(24).encode(), mode)
    with pytest.raises(Refused, match=r"others may read .*: chmod 600 it first"):
        read_secret_text(path)


def test_an_unreadable_file_is_malformed(tmp_path: Path) -> None:
    """A file that cannot be read, for any reason, is a malformed argument."""
    for path in (tmp_path / "nothing", private_folder(tmp_path)):
        with pytest.raises(Malformed) as caught:
            read_secret_text(str(path))
        assert "secret_file" == caught.value.field


def private_folder(folder: Path) -> Path:
    """Return a folder that belongs to this user."""
    made = folder / "folder"
    made.mkdir(mode=0o700)
    return made


def test_a_secret_is_written_to_a_private_file(tmp_path: Path) -> None:
    """Within the block the file has one line and is private; it stays if the block succeeds."""
    path = tmp_path / "out"
    with SecretOutput(path, print_it=False, as_json=True).keeping(SecretMaterial(whsec(24).encode())) as shown:
        assert shown is None
        assert 0o600 == path.stat().st_mode & 0o777
        assert whsec(24) + "\n" == path.read_text()

    assert whsec(24) + "\n" == path.read_text()


def test_a_failure_removes_the_file(tmp_path: Path) -> None:
    """If the block fails, the file of the secret is removed."""
    output = SecretOutput(tmp_path / "out", print_it=False, as_json=True)
    with pytest.raises(Conflict), output.keeping(SecretMaterial(whsec(24).encode())):
        raise Conflict

    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_refuses_the_command() -> None:
    """If the file of the secret cannot be written, the command is refused."""
    with pytest.raises(Refused) as caught:
        _write(os.open("/dev/full", os.O_WRONLY), whsec(24))

    assert "secret_out" == caught.value.field


@pytest.mark.parametrize(("print_it", "expected"), [(True, whsec(24)), (False, None)])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_secret_is_printed_only_on_request(print_it: bool, expected: str | None, as_json: bool) -> None:
    """Without a terminal a secret is printed only on request."""
    output = SecretOutput(None, print_it=print_it, as_json=as_json)
    with output.keeping(SecretMaterial(whsec(24).encode())) as shown:
        assert expected == shown


@pytest.mark.parametrize(("name", "expected"), [("there", Conflict), ("nowhere/out", Refused)])
def test_an_existing_file_is_never_overwritten(name: str, expected: type[HooksealError], tmp_path: Path) -> None:
    """An existing file is never overwritten, and one that cannot be created is refused."""
    (tmp_path / "there").write_text("mine")
    output = SecretOutput(tmp_path / name, print_it=False, as_json=True)
    with pytest.raises(expected) as caught, output.keeping(SecretMaterial(whsec(24).encode())):
        pytest.fail("the block ran without its file")
    assert "secret_out" == caught.value.field
    assert "mine" == (tmp_path / "there").read_text()


@pytest.mark.req("SEC-15")
def test_a_secret_in_place_of_a_file_name_is_not_repeated(tmp_path: Path) -> None:
    """A secret given where a file name belongs is not repeated; `-` is no file to write."""
    with pytest.raises(Malformed) as caught:
        read_secret_text(whsec(24))
    assert whsec(24) not in str(caught.value)
    output = SecretOutput(Path("-"), print_it=False, as_json=True)
    with pytest.raises(Malformed, match="--print-secret"), output.keeping(SecretMaterial(b"x")):
        raise AssertionError


@pytest.mark.parametrize(("error", "stays"), [(InDoubt(), True), (KeyboardInterrupt(), True), (Conflict(), False)])
def test_the_secret_file_stays_if_the_commit_is_in_doubt(tmp_path: Path, error: BaseException, stays: bool) -> None:
    """The file of the secret stays if the commit is in doubt, and is removed after a refusal."""
    output = SecretOutput(file := tmp_path / "secret", print_it=False, as_json=True)
    with pytest.raises(type(error)), output.keeping(SecretMaterial(whsec(24).encode())):
        raise error

    assert stays is file.exists()
