"""Secrets in and out of the command line: never an argument, never a file that others may read."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hookseal.ground.errors import Conflict, HooksealError, InDoubt, Malformed, Refused
from hookseal.ground.wire import Scheme
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signer import parse_signing_secret

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 4_096


def read_secret(source: str | None, scheme: Scheme = Scheme.STANDARD) -> SecretMaterial | None:
    """Return the signing secret in a file, or on standard input for `-`; None if no source was named.

    Raises as `read_secret_text` does, and `Malformed` if it holds no signing secret of the scheme.
    """
    return None if source is None else parse_signing_secret(read_secret_text(source), scheme)


def read_secret_text(source: str) -> str:
    """Return the text in a file, or on standard input for `-`, without one trailing newline.

    Raises `Refused` if others may read the file, `Malformed` if it cannot be read or is not UTF-8.
    """
    raw = sys.stdin.buffer.read(_MAX_BYTES) if source == "-" else _private_bytes(Path(source))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the secret must be text in UTF-8", field="secret") from None
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def _private_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise Refused(f"others may read {path}: chmod 600 it first", field="secret_file")
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise Malformed(f"{path} cannot be read ({error.strerror})", field="secret_file") from None


class SecretOutput:
    """Where a new secret goes: a file of its own, a terminal, or, if asked for, whatever standard output is."""

    def __init__(self, file: Path | None, *, print_it: bool, as_json: bool) -> None:
        self.path = file
        self._shown = print_it or (file is None and not as_json and sys.stdout.isatty())

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

    def keep_instead(self, secret: SecretMaterial | None) -> str | None:
        """Within the block: keep this secret, which was given out before, in place of the one that nobody needs.

        Give what may be printed of it. With None there is none to keep, and the file is gone again. Raises
        `Refused` if it cannot be written.
        """
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if secret is None:
            return None
        text = secret.reveal().decode("utf-8")
        if self.path is not None:
            _write(_created(self.path), text + "\n")
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
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is already there: name a new file", field="secret_out") from None
    except OSError as error:
        raise Refused(f"{path} cannot be made ({error.strerror})", field="secret_out") from None
