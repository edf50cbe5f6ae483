"""`hookseal key`: the master keys that seal the secrets, and the integrity key."""

import os
from typing import Annotated, Final

import typer

from hookseal.cli.key.compromise import compromise, versions
from hookseal.cli.key.moves import destroy, promote, retire, stage
from hookseal.cli.key.rewrap import rewrap
from hookseal.cli.key.wrap import draw, never_lost, wrap
from hookseal.cli.shared.operating import NEEDS, operate, operator_name, outside_of
from hookseal.cli.shared.output import Json, emit, table
from hookseal.cli.shared.runtime import Connection, reading, start
from hookseal.config.settings import Settings
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.errors import Refused
from hookseal.operations.key.keys import begin, rotate_integrity_key
from hookseal.secrets import migrate_secrets
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import keys

app: Final = typer.Typer(help="Initialise an installation, change its master keys, rotate its integrity key.")

_COLUMNS: Final = ("key_id", "state", "held", "records", "workers")
_TIMES: Final = ("promoted_at", "drained_at", "compromised_at", "retired_at", "destroyed_at")


@app.command()
def init(
    *,
    kms: Annotated[
        bool,
        typer.Option("--kms", metavar="", help="Draw the master key, and print it wrapped by the KMS of SECRETS_KMS."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Initialise the installation, once: register the master key, and create the integrity key and the sentinel.

    With --kms the command draws the master key, and prints the value for SECRETS_MASTER_KEY_WRAPPED; the key itself is
    written nowhere. With a provider outside PostgreSQL there is no master key: the integrity key and the sentinel are
    created at the provider.

    Example: hookseal key init
    """
    settings = start(NEEDS, draws_key=kms)
    if kms and settings.secrets.provider is not Provider.DB:
        raise Refused(f"--kms is for SECRETS_PROVIDER db: {settings.secrets.provider} has no master key", field="kms")
    drawn = draw(settings) if kms else None
    keyring = _first_keyring(settings) if drawn is None else KeyRing(drawn.key)
    with never_lost(drawn):
        made = reading(settings, lambda connection: _begun(settings, connection, keyring))
        created = [str(made.integrity_ref), str(made.sentinel_ref)] if made.created else []
        facts = {"key_id": made.key_id, "state": made.state, "created": created}
        if drawn is None:
            emit(facts, as_json=as_json, text=_begun_text(settings, made, created))
        else:
            emit(facts | drawn.facts, as_json=as_json, text=drawn.text)


def _begun_text(settings: Settings, made: keys.KeyStatus, created: list[str]) -> str:
    first = (
        f"no master key: secrets are kept by {settings.secrets.provider}"
        if made.key_id is None
        else f"master key {made.key_id} is {made.state}; keep it safe: without it no stored secret can be read"
    )
    return first + "\n" + (f"created {' and '.join(created)}" if created else "next: hookseal secret move --to db")


def _first_keyring(settings: Settings) -> KeyRing | None:
    """Return the keyring of the settings; None with a provider outside PostgreSQL. Raises `Refused` with `dev`."""
    is_outside = settings.secrets.provider not in (Provider.DB, Provider.DEV)
    return None if is_outside else _keyring(settings)


async def _begun(settings: Settings, connection: Connection, keyring: KeyRing | None) -> keys.KeyStatus:
    async with outside_of(settings) as outside:
        return await begin(
            connection,
            keyring,
            operator_name(),
            os.urandom,
            provider=settings.secrets.provider,
            outside=outside,
        )


@app.command()
def status(*, as_json: Json = False) -> None:
    """List the master keys, each with its state, the number of its records, and of the live workers that have it.

    `held` says whether the settings of this command have the key. An `unregistered` key has records, but is not in the
    table of keys: its records cannot be opened.

    Example: hookseal key status --json
    """
    settings = start(NEEDS)
    keyring = settings.secrets.keyring or _first_keyring(settings)
    rows, plaintext = reading(settings, lambda connection: _rows(connection, keyring))
    items = [{column: getattr(row, column) for column in (*_COLUMNS, *_TIMES)} for row in rows]
    shown = [item | {"held": "yes" if item["held"] else "no"} for item in items]
    emit(
        {"items": items, "next_cursor": None, "plaintext_endpoints": plaintext},
        as_json=as_json,
        text=lambda: _status_text(settings, shown, plaintext),
    )


for command in (stage, promote, rewrap, retire, destroy, compromise, versions, wrap):
    app.command()(command)


@app.command()
def rotate_integrity(*, as_json: Json = False) -> None:
    """Create a new version of the integrity key, which makes the MACs of endpoint rows and audit rows from now on.

    Older versions only verify the MACs that they made. So an attacker who has an older version can still forge with it.
    Workers load the new version by themselves.

    Example: hookseal key rotate-integrity
    """
    made = operate(start(NEEDS), lambda operator: rotate_integrity_key(operator, os.urandom))
    emit(
        {"key_id": made.key_id, "integrity_ref": str(made.ref), "older": list(made.older)},
        as_json=as_json,
        text=f"integrity key {made.key_id} makes the MACs from now on; {', '.join(made.older)} only verify",
    )


async def _rows(connection: Connection, keyring: KeyRing | None) -> tuple[tuple[keys.KeyRow, ...], int]:
    rows = await keys.status(connection, keyring, live_seconds=LIVE_SECONDS)
    return rows, await migrate_secrets.count_plaintext(connection)


def _status_text(settings: Settings, shown: list[dict[str, object]], plaintext: int) -> str:
    none = (
        "no master key yet: run `hookseal key init`"
        if settings.secrets.provider is Provider.DB
        else f"no master key: secrets are kept by {settings.secrets.provider}"
    )
    keyed = table(shown, _COLUMNS) if shown else none
    return keyed + (
        f"\nendpoints with a plaintext secret: {plaintext} (run `hookseal migrate-secrets`)" if plaintext else ""
    )


def _keyring(settings: Settings) -> KeyRing:
    secrets = settings.secrets
    if secrets.keyring is None:
        raise Refused(f"SECRETS_PROVIDER {secrets.provider} has no master keys that last: set SECRETS_PROVIDER=db")
    return secrets.keyring
