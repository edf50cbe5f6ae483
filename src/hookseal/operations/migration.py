"""Migrating the plaintext secrets of an older system, audited: each endpoint in one transaction, and then their end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import waiting
from hookseal.ground.errors import Conflict, Malformed, Refused
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoints import host
from hookseal.operations.operator import Operator
from hookseal.operations.rotation import signing
from hookseal.schema import plaintext as schema
from hookseal.schema.database import OUTAGES, Connection
from hookseal.schema.plaintext import PlaintextColumn
from hookseal.secrets import migration
from hookseal.secrets.errors import SecretError
from hookseal.secrets.migration import Held
from hookseal.secrets.signer import fits_standard

EMPTIED_AT_ONCE: Final = 100
_SUBJECT: Final = "plaintext"
_LEFT: Final = "an endpoint got a plaintext secret meanwhile: find out who writes them, then run this again"


class Migration(StrEnum):
    """What became of an endpoint's plaintext: sealed now, sealed before, or not there any more."""

    MIGRATED = "migrated"
    PRESENT = "present"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What became of an endpoint's plaintext, and whether its secret may be meant for another scheme.

    `fits_standard` says that the endpoint signs in `x-webhook`, with the text as it is, and that the text is a secret
    of Standard Webhooks as well.
    """

    what: Migration
    fits_standard: bool = False


async def migrate_endpoint(operator: Operator, held: Held, scheme: Scheme = migration.SCHEME) -> Migrated:
    """Seal the plaintext of the endpoint as its first secret, byte for byte, signing in that scheme; or change nothing.

    The plaintext stays in its column until `empty_batch`. What waits for the secret is due at once. Raises what
    `secrets.migration.sealed` and `require_same` raise, `Refused` if PostgreSQL takes the row so from nobody, and
    `Unavailable`.
    """
    async with _changing(operator) as connection:
        return await _migrated(operator, connection, held, scheme, is_dry=False)


async def foretell(operator: Operator, held: Held, scheme: Scheme = migration.SCHEME) -> Migrated:
    """Return what `migrate_endpoint` would make of the endpoint, or raise what it would; nothing is written."""
    async with _changing(operator) as connection:
        return await _migrated(operator, connection, held, scheme, is_dry=True)


async def empty_batch(operator: Operator, held: Sequence[Held]) -> int:
    """Empty the column of these endpoints, once each was found to be sealed; return how many held something.

    All of them or none. Raises as `migrate_endpoint`, and `Refused` for an endpoint that is not migrated.
    """
    async with _changing(operator) as connection:
        checked: list[Held] = []
        for each in held:
            match await _looked_at(operator, connection, each):
                case Migration.PRESENT:
                    checked.append(each)
                case Migration.MIGRATED:
                    raise Refused(
                        f"{each.tenant_id} {each.endpoint_id} is not migrated: run `hookseal migrate-secrets`"
                    )
                case Migration.GONE:
                    continue
        emptied = await migration.empty(connection, checked)
        if emptied:
            await operator.tell(_change(Action.PLAINTEXT_EMPTIED, {"endpoints": emptied}))
    return emptied


async def forbid_plaintext(operator: Operator, *, emptied: int) -> bool:
    """Have PostgreSQL refuse plaintext from now on; return False if it did already, or the column is gone.

    `emptied` is for the audit row: how many rows this run emptied. Raises `Refused` while an endpoint has a plaintext
    secret, `Unavailable`, also if the table is in use for more than two seconds on end.
    """
    async with _changing(operator) as connection:
        if await schema.state(connection) is not PlaintextColumn.THERE:
            return False
        try:
            await migration.forbid(connection)
        except asyncpg.CheckViolationError:
            raise Refused(_LEFT) from None
        await operator.tell(_change(Action.PLAINTEXT_FORBIDDEN, {"emptied_endpoints": emptied}))
    return True


async def _looked_at(operator: Operator, connection: Connection, held: Held) -> Migration:
    try:
        return (await _migrated(operator, connection, held, migration.SCHEME, is_dry=True)).what
    except (Conflict, Malformed, SecretError) as error:
        raise Refused(f"{held.tenant_id} {held.endpoint_id}: {error}") from None


async def _migrated(
    operator: Operator, connection: Connection, held: Held, scheme: Scheme, *, is_dry: bool
) -> Migrated:
    locked = await migration.locked(connection, held)
    if locked is None:
        return Migrated(what=Migration.GONE)
    found, secret = locked.pointer, locked.secret
    fits = fits_standard(secret)
    store, integrity = operator.unlocked.store_on(connection), operator.unlocked.integrity
    if found.secret_ref is not None:
        await migration.require_same(store, integrity, found, secret)
        return Migrated(what=Migration.PRESENT, fits_standard=fits and found.scheme == Scheme.X_WEBHOOK)
    migrated = Migrated(what=Migration.MIGRATED, fits_standard=fits and scheme is Scheme.X_WEBHOOK)
    if is_dry:
        migration.require_sealable(secret, found, scheme)
        await migration.require_unsealed(store, found)
        return migrated
    after = await migration.sealed(connection, store, integrity, found=found, secret=secret, scheme=scheme)
    if locked.some_wait:
        await waiting.probe(connection, found.tenant_id, found.endpoint_id)
    await operator.tell(_told(found, after, await operator.unlocked.sealing_key_id(connection)))
    return migrated


@asynccontextmanager
async def _changing(operator: Operator) -> AsyncIterator[Connection]:
    """Give the connection in a transaction, as `Operator.changing`.

    What PostgreSQL says of a row may hold all of the row, plaintext among it: no word of that leaves.
    """
    try:
        async with operator.changing() as connection:
            yield connection
    except asyncpg.PostgresError as error:
        if isinstance(error, (*OUTAGES, asyncpg.InsufficientPrivilegeError)):
            raise
        raise Refused(
            f"PostgreSQL does not take the change of this row ({type(error).__name__}): see which constraint or "
            "trigger of yours stands against it"
        ) from None


def _told(before: Pointer, after: Pointer, key_id: str | None) -> Change:
    return Change(
        tenant_id=after.tenant_id,
        action=Action.SECRET_MIGRATED,
        subject=f"endpoint:{after.endpoint_id}",
        before=signing(before),
        after=signing(after) | {"host": host(after.url), "key_id": key_id},
    )


def _change(action: Action, facts: dict[str, object]) -> Change:
    return Change(tenant_id=SYSTEM_TENANT, action=action, subject=_SUBJECT, after=facts)
