"""`hookseal key wrap`: a master key that only the KMS can read, for the settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import OutputLost, emit_error
from hookseal.cli.shared.runtime import run, start
from hookseal.cli.shared.secret_files import read_secret_text
from hookseal.config.keys import INSTALLATION, KMS, MASTER_KEY, WRAPPED_KEY
from hookseal.config.load import NOTHING, harden_process, load
from hookseal.config.settings import Part, Settings
from hookseal.errors import ConfigError, InDoubt, LocalFailure, Malformed, Refused, with_advice
from hookseal.ground.clock import SystemClock
from hookseal.secrets.core.keyring import KEY_BYTES, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.kms.wrapped import KMS_FORM, KmsKey, KmsSettings, WrappedKey

_NEEDS: Final = frozenset({Part.SECRETS})


def wrap(
    *,
    key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Wrap the master key in this file; - is standard input.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", metavar="", help="Wrap a new master key, which is drawn now.")] = False,
    to: Annotated[
        str | None, typer.Option(metavar="KMS", help="The KMS that wraps, if it is not that of SECRETS_KMS.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a master key, wrapped by the KMS: the one in the settings, one in a file, or a new one.

    The plain key is written nowhere. The wrapped one is not secret: nobody can read it whom the KMS does not permit.
    With --to, the key in the settings moves to another KMS. hookseal then needs SECRETS_KMS with that KMS.

    Example: hookseal key wrap --new > next.wrapped
    """
    if new and key_file is not None:
        raise Malformed("--new draws a key, and --key-file names one: leave out one of them", field="new")
    environ = dict(os.environ)  # the start takes credentials out of it
    settings = start(NOTHING if new or key_file is not None else _NEEDS)
    harden_process()
    kms = _kms(settings, environ, to)
    made = _wrapped(kms, _key(settings, key_file, new=new))
    emit(_facts(kms, made), as_json=as_json, text=str(made))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A new master key and the same wrapped, with what a command prints about it."""

    key: MasterKey
    wrapped: WrappedKey
    kms: KmsSettings

    @property
    def facts(self) -> dict[str, object]:
        """The facts for `--json`."""
        return _facts(self.kms, self.wrapped)

    @property
    def text(self) -> str:
        """The wrapped key, as the settings have it."""
        return str(self.wrapped)


def draw(settings: Settings) -> Drawn:
    """Return a new master key, wrapped by the KMS of the settings. Raises `Refused`, `Unavailable`, `ConfigError`."""
    kms, key = _require_kms(settings), _new_key()
    return Drawn(key=key, wrapped=_wrapped(kms, key), kms=kms)


@contextmanager
def never_lost(drawn: Drawn | None) -> Iterator[None]:
    """Print the wrapped key with an error of the block, which registers the key in the database and prints it."""
    try:
        yield
    except InDoubt as error:
        if drawn is None:
            raise
        raise InDoubt(f"{with_advice(error)}. If it was made, {WRAPPED_KEY} is {drawn.text}") from None
    except OutputLost:
        if drawn is not None:  # as text: a JSON object would go to the same standard output
            message = f"the master key is registered; keep its wrapped form: {WRAPPED_KEY} is {drawn.text}"
            emit_error(code=LocalFailure.code, message=message, field=None, as_json=False)
        raise


def _wrapped(kms: KmsSettings, key: MasterKey) -> WrappedKey:
    async def wrap_once() -> WrappedKey:
        async with key_wrapper(kms, clock=SystemClock()) as wrapper:
            return await wrapper.wrap(key)

    return run(wrap_once())


def _facts(kms: KmsSettings, made: WrappedKey) -> dict[str, object]:
    return {"key_id": made.key_id, "kms": str(kms.key), "installation": kms.installation, "wrapped": str(made)}


def _new_key() -> MasterKey:
    return MasterKey(SecretMaterial(os.urandom(KEY_BYTES)))


def _require_kms(settings: Settings) -> KmsSettings:
    if settings.kms is None:
        raise Refused(f"{KMS} is not set: set it to {KMS_FORM}, and {INSTALLATION} to a name", field=KMS)
    return settings.kms


def _kms(settings: Settings, environ: dict[str, str], to: str | None) -> KmsSettings:
    if to is None:
        return _require_kms(settings)
    try:
        KmsKey.parse(to)
    except ValueError:
        raise Malformed(f"a KMS is written as {KMS_FORM}", field="to") from None
    return _require_kms(load(environ | {KMS: to}, needs=NOTHING))  # with what that KMS needs of the settings


def _key(settings: Settings, key_file: str | None, *, new: bool) -> MasterKey:
    if new:
        return _new_key()
    if key_file is not None:
        try:
            return MasterKey.parse(read_secret_text(key_file), variable="--key-file")
        except ConfigError as error:
            raise Malformed(with_advice(error), field="key_file") from None
    key = settings.secrets.master_key
    if key is None:
        raise Refused(f"there is no master key in the settings: set {MASTER_KEY} or {WRAPPED_KEY}, or use --new")
    return key
