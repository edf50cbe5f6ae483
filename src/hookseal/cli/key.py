"""`hookseal key`: the master keys that seal the secrets."""

import os
from typing import Final

import typer

from hookseal.cli.key_changes import destroy, promote, retire, stage
from hookseal.cli.key_compromise import compromise, versions
from hookseal.cli.key_rewrap import rewrap
from hookseal.cli.operating import NEEDS, operating, who
from hookseal.cli.output import Json, emit, table
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Settings
from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.errors import Refused
from hookseal.operations.integrity import RotatedIntegrity, rotate_integrity_key
from hookseal.operations.keys import begin
from hookseal.secrets import keys, migration
from hookseal.secrets.keyring import KeyRing

app: Final = typer.Typer(help="Begin an installation, change its master keys, rotate its integrity key.")

_COLUMNS: Final = ("key_id", "state", "held", "records", "workers")
_TIMES: Final = ("promoted_at", "drained_at", "compromised_at", "retired_at", "destroyed_at")


for command in (stage, promote, rewrap, retire, destroy, compromise, versions):
    app.command()(command)


@app.command()
def init(*, as_json: Json = False) -> None:
    """Register the master key, and make the keys that the installation keeps for itself. Once.

    Example: hookseal key init
    """
    made = run(_initialise(start(NEEDS)))
    created = [str(made.integrity_ref), str(made.sentinel_ref)]
    emit(
        {"key_id": made.key_id, "state": made.state, "created": created},
        as_json=as_json,
        text=f"master key {made.key_id} is {made.state}; keep it safe: without it no stored secret can be read\n"
        f"created {' and '.join(created)}",
    )


@app.command()
def status(*, as_json: Json = False) -> None:
    """List the master keys, who holds each (this process, how many live workers), and the records that are under it.

    A key that records name and nobody registered is `unregistered`: what is under it cannot be opened.

    Example: hookseal key status --json
    """
    rows, plaintext = run(_rows(start(NEEDS)))
    items = [{column: getattr(row, column) for column in (*_COLUMNS, *_TIMES)} for row in rows]
    shown = [item | {"held": "yes" if item["held"] else "no"} for item in items]
    emit(
        {"items": items, "next_cursor": None, "plaintext_endpoints": plaintext},
        as_json=as_json,
        text=lambda: _status_text(shown, plaintext),
    )


@app.command()
def rotate_integrity(*, as_json: Json = False) -> None:
    """Make a new version of the integrity key, which vouches for endpoint rows and audit rows from now on.

    Older versions verify what they made, and make nothing any more. So it does not shut out who holds an older one.
    Workers learn the new one by themselves.

    Example: hookseal key rotate-integrity
    """
    made = run(_rotate_integrity(start(NEEDS)))
    emit(
        {"key_id": made.key_id, "integrity_ref": str(made.ref), "older": list(made.older)},
        as_json=as_json,
        text=f"integrity key {made.key_id} authenticates from now on; {', '.join(made.older)} verify only",
    )


async def _rotate_integrity(settings: Settings) -> RotatedIntegrity:
    async with operating(settings) as operator:
        return await rotate_integrity_key(operator, os.urandom)


async def _initialise(settings: Settings) -> keys.KeyStatus:
    keyring = _keyring(settings)
    async with connect(settings.database) as connection:
        await require_schema(connection)
        return await begin(connection, keyring, who(), os.urandom)


async def _rows(settings: Settings) -> tuple[tuple[keys.KeyRow, ...], int]:
    keyring = _keyring(settings)
    async with connect(settings.database) as connection:
        await require_schema(connection)
        rows = await keys.status(connection, keyring, live_seconds=LIVE_SECONDS)
        return rows, await migration.held(connection)


def _status_text(shown: list[dict[str, object]], plaintext: int) -> str:
    keyed = table(shown, _COLUMNS) if shown else "no master key yet: run `hookseal key init`"
    return keyed + (
        f"\nendpoints with a secret in the clear: {plaintext} (hookseal migrate-secrets)" if plaintext else ""
    )


def _keyring(settings: Settings) -> KeyRing:
    secrets = settings.secrets
    if secrets.keyring is None:
        raise Refused(f"SECRETS_PROVIDER {secrets.provider} has no keys that last: each process makes its own; use db")
    return secrets.keyring
