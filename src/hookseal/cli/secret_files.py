"""Secrets in and out of the command line: never an argument, never a file that others may read."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from hookseal.cli.input_files import STANDARD_INPUT
from hookseal.ground.errors import Conflict, HooksealError, InDoubt, Malformed, Refused
from hookseal.ground.log import masked_text
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signer import parse_signing_secret, public_key_of

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 4_096


def read_secret(
    source: str | None, scheme: Scheme = Scheme.STANDARD, algorithm: Algorithm = Algorithm.HMAC
) -> SecretMaterial | None:
    """Return the signing secret in a file, or on standard input for `-`; None if no source was named.

    Raises as `read_secret_text` does, and `Malformed` if it holds no signing secret of the scheme and algorithm.
    """
    return None if source is None else parse_signing_secret(read_secret_text(source), scheme, algorithm)


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
    """Return what a file of ours alone holds, or standard input for `-`.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be read or has more than `at_most` bytes.
    """
    with private_file(source, field=field) as file:
        try:
            return _whole(file.read(at_most + 1), at_most, field)
        except OSError as error:
            raise Malformed(f"{masked_text(source)} cannot be read ({error.strerror})", field=field) from None


@contextmanager
def private_file(source: str, *, field: str) -> Iterator[BinaryIO]:
    """Give a file of ours alone for reading, or standard input for `-`.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be opened.
    """
    if source == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    path = Path(source)
    try:
        file = path.open("rb")
    except OSError as error:
        # Somebody may have given the secret in place of its file.
        raise Malformed(f"{masked_text(source)} cannot be read ({error.strerror})", field=field) from None
    with file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise Refused(f"others may read {path}: chmod 600 it first", field=field)
        yield file


def _whole(raw: bytes, at_most: int, field: str) -> bytes:
    if len(raw) > at_most:
        raise Malformed(f"the file may hold at most {at_most} bytes", field=field)
    return raw


def handed_out(secret: SecretMaterial) -> SecretMaterial:
    """Return what the receiver is given: of a `whsk_` the public key, which verifies and signs nothing."""
    public_key = public_key_of(secret)
    return secret if public_key is None else SecretMaterial(public_key.encode())


class SecretOutput:
    """Where a new secret goes: a file of its own, a terminal, or, if asked for, whatever standard output is."""

    def __init__(self, file: Path | None, *, print_it: bool, as_json: bool) -> None:
        self.path = file
        self._shown = print_it or (file is None and not as_json and sys.stdout.isatty())

    @property
    def goes_nowhere(self) -> bool:
        """Whether a secret would be neither written nor shown."""
        return self.path is None and not self._shown

    @contextmanager
    def keeping(self, secret: SecretMaterial) -> Iterator[str | None]:
        """Write the secret to its file before the block, and give what may be printed, None if it may not.

        The secret is safe on disk before anything is stored that needs it; if the block is refused, the file is
        gone again; where the block may have been done all the same it stays. Raises `Conflict` if the file is
        there, `Refused` if it cannot be written.
        """
        text = secret.reveal().decode("utf-8")
        if self.path is None:
            yield text if self._shown else None
            return
        descriptor = _created(self.path)
        try:
            _write(descriptor, text + "\n")
            yield text if self._shown else None
        except HooksealError as error:
            if not isinstance(error, InDoubt):  # whose change may have been made all the same
                self.path.unlink(missing_ok=True)
            raise

    @contextmanager
    def reserving(self) -> Iterator[None]:
        """Make the file, empty, before the block that keeps a secret in it; if that goes wrong it is gone again.

        Raises as `keeping`.
        """
        if self.path is None:
            yield
            return
        os.close(_created(self.path))
        try:
            yield
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise

    def keep_instead(self, secret: SecretMaterial | None) -> str | None:
        """Within the block: keep this secret, which was given out before, in place of the one that nobody needs.

        Give what may be printed of it. With None there is none to keep, and the file is gone again. Raises
        `InDoubt` if it cannot be written: what it is about was done before.
        """
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if secret is None:
            return None
        text = secret.reveal().decode("utf-8")
        if self.path is not None:
            try:
                _write(_created(self.path), text + "\n")
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


def _created(path: Path) -> int:
    if str(path) == STANDARD_INPUT:
        raise Malformed("--secret-out names a file; to print the secret use --print-secret", field="secret_out")
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is already there: name a new file", field="secret_out") from None
    except OSError as error:
        raise Refused(f"{path} cannot be made ({error.strerror})", field="secret_out") from None
