"""`hookseal key`: the master keys that seal the secrets, and the integrity key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from hookseal.admin import Admin, Compromise, InitialisedKeys, MasterKeys, MovedKey, RewrappedKey, UnopenedRecord
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.endpoint import rotation as options
from hookseal.cli.shared.moments import lasting
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, rfc3339, table
from hookseal.cli.shared.printing import OutputLost, emit_error
from hookseal.cli.shared.progress import progress
from hookseal.cli.shared.runtime import run, start
from hookseal.cli.shared.secret_files import read_secret_text
from hookseal.config.keys import INSTALLATION, KMS, MASTER_KEY, NEXT_KEY, WRAPPED_KEY
from hookseal.config.load import NOTHING, harden_process, load
from hookseal.config.settings import Part, Settings
from hookseal.errors import ConfigError, InDoubt, LocalFailure, Malformed, Refused, with_advice
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import plural
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.keys import key_wrapper
from hookseal.secrets.kms.wrapped import KMS_FORM, KmsKey, KmsSettings, WrappedKey

app: Final = typer.Typer(help="Initialise an installation, change its master keys, rotate its integrity key.")

_WRAPS: Final = frozenset({Part.SECRETS})
_COLUMNS: Final = Columns(
    ("key_id", "state", "held", "records", "workers"),
    ("promoted_at", "drained_at", "compromised_at", "retired_at", "destroyed_at"),
)
_SEALED_COLUMNS: Final = Columns(("ref", "state", "purpose", "used_as"), ("tenant_id", "endpoint_id"))

KeyId = Annotated[str, typer.Argument(help="The id of the master key, from `hookseal key status`.")]


@app.command()
def init(
    *,
    kms: Annotated[
        bool,
        typer.Option("--kms", help="Draw the master key, and print it wrapped by the KMS of SECRETS_KMS."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Initialise the installation, once: register the master key, and create the integrity key and the sentinel.

    With --kms the command draws the master key, and prints the value for SECRETS_MASTER_KEY_WRAPPED; the key itself is
    written nowhere. With a provider outside PostgreSQL there is no master key: the integrity key and the sentinel are
    created at the provider.

    Example: hookseal key init
    """
    settings = start(CHANGES, draws_key=kms)
    if kms and settings.secrets.provider is not Provider.DB:
        raise Refused(f"--kms is for SECRETS_PROVIDER db: {settings.secrets.provider} has no master key", field="kms")
    drawn = _draw(settings) if kms else None
    ring = None if drawn is None else KeyRing(drawn.key)
    with _never_lost(drawn):
        begun = call(settings, lambda admin: admin.keys.initialise(actor=operator_name(), keyring=ring))
        if drawn is None:
            emit(begun, as_json=as_json, text=_begun_text(settings, begun))
        else:
            emit(fields_of(begun) | drawn.facts, as_json=as_json, text=drawn.text)


@app.command()
def status(*, wide: Wide = False, as_json: Json = False) -> None:
    """List the master keys, each with its state, the number of its records, and of the live workers that have it.

    `held` says whether the settings of this command have the key. An `unregistered` key has records, but is not in the
    table of keys: its records cannot be opened.

    Example: hookseal key status --json
    """
    settings = start(CHANGES)
    keys = call(settings, lambda admin: admin.keys.status())
    emit(keys, as_json=as_json, text=lambda: _status_text(settings, keys, wide=wide))


@app.command()
def stage(*, as_json: Json = False) -> None:
    """Register the key in SECRETS_MASTER_KEY_NEXT, which seals nothing yet.

    Then restart every worker with this setting, and run `hookseal key promote`.

    Example: SECRETS_MASTER_KEY_NEXT_FILE=next.key hookseal key stage
    """
    settings = start(CHANGES)
    moved = call(settings, lambda admin: admin.keys.stage(actor=operator_name()), keyring=_ring_without_next(settings))
    emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.key_id} is staged: restart every worker with {NEXT_KEY}, then run\n"
        f"  hookseal key promote {moved.key_id}",
    )


@app.command()
def promote(key_id: KeyId, *, as_json: Json = False) -> None:
    """Encrypt new secrets with this key from now on, in every process; the key before it only decrypts.

    It fails with exit code 4 while a live worker does not have the key. To undo it, promote the older key again.

    Example: hookseal key promote 0123456789abcdef
    """
    moved = call(start(CHANGES), lambda admin: admin.keys.promote(key_id=key_id, actor=operator_name()))
    emit(moved, as_json=as_json, text=_promoted(moved))


@app.command()
def rewrap(key_id: KeyId, *, as_json: Json = False) -> None:
    """Re-wrap all records of this master key under the active one, in batches, while workers run.

    No secret is decrypted. You may run it again, or twice at the same time: it continues with the records that are
    left. Exit 1 if a record is left. It names each record that the key does not open, and leaves it unchanged.

    Example: hookseal key rewrap 0123456789abcdef
    """

    async def step(admin: Admin) -> RewrappedKey:
        with progress("records re-wrapped", await admin.keys.records(key_id=key_id)) as report:
            return await admin.keys.rewrap(
                key_id=key_id, actor=operator_name(), report=lambda more, one: report(more, _unopened_text(one))
            )

    rewrapped = call(start(CHANGES), step)
    emit(rewrapped, as_json=as_json, text=_rewrapped_text(rewrapped))
    raise typer.Exit(1 if rewrapped.left else 0)


@app.command()
def retire(key_id: KeyId, *, as_json: Json = False) -> None:
    """Stop using this key for decryption.

    It fails with exit code 4 while a record needs the key: run `hookseal key rewrap` first.

    Example: hookseal key retire 0123456789abcdef
    """
    moved = call(start(CHANGES), lambda admin: admin.keys.retire(key_id=key_id, actor=operator_name()))
    emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.key_id} is retired: it decrypts nothing any more\n{_backups(moved)}",
    )


@app.command()
def destroy(key_id: KeyId, *, as_json: Json = False) -> None:
    """Mark a retired key as destroyed, after you destroyed its material: a process that has it will not start.

    It fails with exit code 4 unless the key is retired, and while these settings or a live worker have it.

    Example: hookseal key destroy 0123456789abcdef
    """
    moved = call(start(CHANGES), lambda admin: admin.keys.destroy(key_id=key_id, actor=operator_name()))
    emit(
        moved,
        as_json=as_json,
        text=f"master key {moved.key_id} is destroyed: a process that has it will not start\n{_backups(moved)}",
    )


@app.command()
def compromise(
    key_id: KeyId,
    *,
    overlap: options.Overlap = None,
    force: options.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count what would be changed.")] = False,
    as_json: Json = False,
) -> None:
    """After a master key leaked, rotate every signing secret that was ever sealed under it, of all tenants.

    Promote another key first. To re-wrap the records is not enough: with the key and a copy of the table, an attacker
    has the secrets. A previous secret still signs until its overlap ends; --overlap 0 ends it now. You may run the
    command again: it continues where it stopped. Exit 1 if something is left to do, which it prints. `hookseal secret
    reveal` prints the new secrets.

    Example: hookseal key compromise 0123456789abcdef --overlap 1h
    """
    overlap_seconds = lasting(overlap, "s", "overlap")

    async def step(admin: Admin) -> Compromise:
        with progress("versions examined", await admin.keys.count_versions(key_id=key_id)) as report:
            return await admin.keys.compromise(
                key_id=key_id,
                actor=operator_name(),
                overlap_seconds=overlap_seconds,
                force=force,
                dry_run=dry_run,
                report=lambda ref, problem: report(1, None if problem is None else f"{ref}: {problem}"),
            )

    replaced = call(start(CHANGES), step)
    emit(replaced, as_json=as_json, text=lambda: _compromise_text(replaced))
    raise typer.Exit(1 if replaced.failed or replaced.header_values or replaced.client_keys else 0)


@app.command()
def versions(
    key_id: KeyId,
    *,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List every secret version that was ever sealed under this master key, and how its endpoint uses it now.

    Example: hookseal key versions 0123456789abcdef --json
    """
    page = call(start(CHANGES), lambda admin: admin.keys.versions(key_id=key_id, limit=limit, cursor=cursor))
    emit_page(page, _SEALED_COLUMNS, none="no secret was ever sealed under this key", as_json=as_json, wide=wide)


@app.command()
def wrap(
    *,
    key_file: Annotated[str | None, typer.Option(help="Wrap the master key in this file; - is standard input.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Wrap a new master key, which is drawn now.")] = False,
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
    settings = start(NOTHING if new or key_file is not None else _WRAPS)
    harden_process()
    kms = _kms(settings, environ, to)
    wrapped = _wrapped(kms, _key(settings, key_file, new=new))
    emit(_facts(kms, wrapped), as_json=as_json, text=str(wrapped))


@app.command()
def rotate_integrity(*, as_json: Json = False) -> None:
    """Create a new version of the integrity key, which makes the MACs of endpoint rows and audit rows from now on.

    Older versions only verify the MACs that they made. So an attacker who has an older version can still forge with it.
    Workers load the new version by themselves.

    Example: hookseal key rotate-integrity
    """
    rotated = call(start(CHANGES), lambda admin: admin.keys.rotate_integrity(actor=operator_name()))
    emit(
        rotated,
        as_json=as_json,
        text=f"integrity key {rotated.key_id} makes the MACs from now on; {', '.join(rotated.older)} only verify",
    )


def _begun_text(settings: Settings, begun: InitialisedKeys) -> str:
    first = (
        f"no master key: secrets are kept by {settings.secrets.provider}"
        if begun.key_id is None
        else f"master key {begun.key_id} is {begun.state}; keep it safe: without it no stored secret can be read"
    )
    then = f"created {' and '.join(begun.created)}" if begun.created else "next, run `hookseal secret move --to db`"
    return f"{first}\n{then}"


def _status_text(settings: Settings, keys: MasterKeys, *, wide: bool) -> str:
    rows = [fields_of(each) for each in keys.items]
    none = (
        "no master key yet: run `hookseal key init`"
        if settings.secrets.provider is Provider.DB
        else f"no master key: secrets are kept by {settings.secrets.provider}"
    )
    keyed = table(rows, _COLUMNS.shown(wide=wide), wide=wide) if rows else none
    plaintext = keys.plaintext_endpoints
    return keyed + (
        f"\nendpoints with a plaintext secret: {plaintext} (run `hookseal migrate-secrets`)" if plaintext else ""
    )


def _ring_without_next(settings: Settings) -> KeyRing | None:
    """Return the keyring for a next key that is not registered yet: only `key stage` may have it. None: that of all."""
    key = settings.secrets.next_key
    if key is None or key.key_id in call(settings, lambda admin: admin.keys.registered()):
        return None
    return settings.secrets.registered_keyring


def _promoted(moved: MovedKey) -> str:
    key_id = moved.key_id
    text = f"master key {key_id} is active. Now"
    if moved.was == "active":
        text = f"master key {key_id} was active already: nothing was changed. "
        if not moved.older:
            return f"{text}No other key has records to re-wrap."
        text += "If you have not done so yet,"
    return (
        f"{text} set SECRETS_MASTER_KEY to it, and\nSECRETS_MASTER_KEY_PREVIOUS to the older one; "
        "restart every worker, and run\n" + "\n".join(f"  hookseal key rewrap {each}" for each in moved.older)
    )


def _backups(key: MovedKey) -> str:
    if key.promoted_at is None:
        return "it never sealed anything, so no backup needs it"
    first = rfc3339(key.promoted_at)
    period = f"since {first}" if key.drained_at is None else f"between {first} and {rfc3339(key.drained_at)}"
    return f"backups made {period} can be read only with this key: keep its material as long as you keep them"


def _unopened_text(one: UnopenedRecord | None) -> str | None:
    if one is None:
        return None
    return f"{one.tenant_id}/{one.name}, version {one.version}: it does not open with the key in its row ({one.code})"


def _rewrapped_text(key: RewrappedKey) -> str:
    sealed = f"records re-wrapped: {key.moved}"
    if key.left and key.to is None and not key.failed:
        stale = plural(key.left, "stale record", "stale records")
        return (
            f"{sealed}; {stale} appeared under {key.key_id} after a re-wrap had left none: "
            "run `hookseal restore check` (runbook, HooksealStaleRow)"
        )
    if key.left:
        return f"{sealed}; left under {key.key_id}: {key.left} (runbook, HooksealSecretRefused)"
    return f"{sealed}; none is under {key.key_id} any more: run `hookseal key retire {key.key_id}`"


def _compromise_text(tally: Compromise) -> str:
    would = "would be " if tally.dry_run else ""
    lines = [
        f"versions ever sealed under master key {tally.key_id}: {tally.versions}",
        f"secrets {would}rotated: {tally.rotated}",
        *([f"overlaps {would}ended: {tally.overlaps_ended}"] if tally.overlaps_ended else []),
        *(["the integrity key " + (f"{would}rotated")] if tally.integrity_rotated else []),
    ]
    if tally.previous_still_signing:
        lines.append(
            "previous secrets that sign until their overlap ends: "
            f"{tally.previous_still_signing} (--overlap 0 ends it now)"
        )
    if tally.header_values:
        lines.append(
            f"header values that their owners must replace: {len(tally.header_values)} (endpoint update --headers-file)"
        )
    if tally.client_keys:
        lines.append(
            f"client keys that their owners must replace: {len(tally.client_keys)} "
            "(endpoint update --client-cert --client-key)"
        )
    if tally.failed:
        lines.append(f"failed: {len(tally.failed)}; correct the cause and run the command again")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
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


def _draw(settings: Settings) -> _Drawn:
    """Return a new master key, wrapped by the KMS of the settings. Raises `Refused`, `Unavailable`, `ConfigError`."""
    kms, key = _require_kms(settings), _new_key()
    return _Drawn(key=key, wrapped=_wrapped(kms, key), kms=kms)


@contextmanager
def _never_lost(drawn: _Drawn | None) -> Iterator[None]:
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


def _facts(kms: KmsSettings, wrapped: WrappedKey) -> dict[str, object]:
    return {"key_id": wrapped.key_id, "kms": str(kms.key), "installation": kms.installation, "wrapped": str(wrapped)}


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
