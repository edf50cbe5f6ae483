"""Secrets in and out of the command line: never an argument, never a file that others may read."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from hookseal.cli.shared.input_files import STANDARD_INPUT
from hookseal.errors import Conflict, HooksealError, InDoubt, Malformed, Refused
from hookseal.ground.log import mask_text
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import public_key_of

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 4_096


def read_secret_text(source: str) -> str:
    """Return the text in a file, or on standard input for `-`, without one trailing newline.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be read or is not UTF-8.
    """
    raw = private_bytes(source, _MAX_BYTES, field="secret_file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the secret must be text in UTF-8", field="secret") from None
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def private_bytes(source: str, at_most: int, *, field: str) -> bytes:
    """Return the content of a private file, or of standard input for `-`.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be read or has more than `at_most` bytes.
    """
    with private_file(source, field=field) as file:
        try:
            return _require_length(file.read(at_most + 1), at_most, field)
        except OSError as error:
            raise Malformed(f"{mask_text(source)} cannot be read ({error.strerror})", field=field) from None


@contextmanager
def private_file(source: str, *, field: str) -> Iterator[BinaryIO]:
    """Give a private file for reading, or standard input for `-`.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be opened.
    """
    if source == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    path = Path(source)
    try:
        file = path.open("rb")
    except OSError as error:
        # The user may have given the secret in place of its file, so the name is masked.
        raise Malformed(f"{mask_text(source)} cannot be read ({error.strerror})", field=field) from None
    with file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise Refused(f"others may read {path}: chmod 600 it first", field=field)
        yield file


def _require_length(raw: bytes, at_most: int, field: str) -> bytes:
    if len(raw) > at_most:
        raise Malformed(f"the file may hold at most {at_most} bytes", field=field)
    return raw


def for_receiver(secret: SecretMaterial) -> SecretMaterial:
    """Return what the receiver gets: the public key of an ed25519 secret (`whsk_`), else the secret itself."""
    public_key = public_key_of(secret)
    return secret if public_key is None else SecretMaterial(public_key.encode())


class SecretOutput:
    """Where a new secret goes: a new file, a terminal, or with `print_it` any standard output."""

    def __init__(self, file: Path | None, *, print_it: bool, as_json: bool) -> None:
        self.path = file
        self._shown = print_it or (file is None and not as_json and sys.stdout.isatty())

    @property
    def has_no_destination(self) -> bool:
        """Whether a secret would be neither written nor shown."""
        return self.path is None and not self._shown

    @contextmanager
    def keeping(self, secret: SecretMaterial) -> Iterator[str | None]:
        """Write the secret to its file before the block, and give it as text if it may be printed, else None.

        So the secret is on disk before the database needs it. If the block fails, the file is removed, except for
        `InDoubt`, where the change may have been made. Raises `Conflict` if the file exists already, `Refused` if it
        cannot be written.
        """
        text = secret.reveal().decode("utf-8")
        if self.path is None:
            yield text if self._shown else None
            return
        descriptor = _create(self.path)
        try:
            _write(descriptor, text + "\n")
            yield text if self._shown else None
        except HooksealError as error:
            if not isinstance(error, InDoubt):  # the change may have been made
                self.path.unlink(missing_ok=True)
            raise

    @contextmanager
    def reserving(self) -> Iterator[None]:
        """Create the empty file before a block that writes a secret to it; remove the file if the block fails.

        Raises as `keeping` does.
        """
        if self.path is None:
            yield
            return
        os.close(_create(self.path))
        try:
            yield
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise

    def keep_instead(self, secret: SecretMaterial | None) -> str | None:
        """Within the block: write this secret to the file in place of the other, and return it if it may be printed.

        With None, remove the file. Raises `InDoubt` if the file cannot be written: the change was made before.
        """
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if secret is None:
            return None
        text = secret.reveal().decode("utf-8")
        if self.path is not None:
            try:
                _write(_create(self.path), text + "\n")
            except HooksealError as error:
                raise InDoubt(f"it was done, but {error}: get the secret with `hookseal secret reveal`") from None
        return text if self._shown else None


def _write(descriptor: int, text: str) -> None:
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise Refused(f"the secret cannot be written ({error.strerror})", field="secret_out") from None


def _create(path: Path) -> int:
    if str(path) == STANDARD_INPUT:
        raise Malformed("--secret-out names a file; to print the secret use --print-secret", field="secret_out")
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already: name a new file", field="secret_out") from None
    except OSError as error:
        raise Refused(f"{path} cannot be created ({error.strerror})", field="secret_out") from None
