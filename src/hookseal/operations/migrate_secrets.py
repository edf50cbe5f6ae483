"""Migrates the plaintext secrets of an older system, audited: each endpoint in one transaction. Then removes them."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import held
from hookseal.errors import Conflict, Malformed, Refused, SecretError
from hookseal.ground.ids import plural
from hookseal.ground.wire import Scheme
from hookseal.operations.bulk import Further, OnProgress, Report, Tally, side_by_side
from hookseal.operations.endpoint.endpoints import host
from hookseal.operations.endpoint.rotation import signing
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.postgres.schema import plaintext as schema
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.postgres.translate import OUTAGES
from hookseal.secrets import migrate_secrets
from hookseal.secrets.core.signing import fits_standard
from hookseal.secrets.migrate_secrets import PlaintextEndpoint

EMPTIED_AT_ONCE: Final = 100
_SUBJECT: Final = "plaintext"
_FIRST: Final = "run `hookseal migrate-secrets` first, which names the endpoints that it cannot migrate"
_NEW_PLAINTEXT: Final = "an endpoint got a plaintext secret meanwhile: find out who writes them, then run this again"


class Migration(StrEnum):
    """The result for an endpoint: its plaintext was sealed now, was sealed before, or is gone."""

    MIGRATED = "migrated"
    PRESENT = "present"
    GONE = "gone"


_DRY_RUN_LABELS: Final[dict[str, str]] = {
    Migration.MIGRATED: "would be migrated",
    Migration.PRESENT: "sealed before",
    Migration.GONE: "gone meanwhile",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """The result for an endpoint, and whether its secret may be meant for another scheme.

    `fits_standard`: the endpoint signs in `x-webhook`, with the text itself as key, although the text is also a valid
    secret of Standard Webhooks.
    """

    what: Migration
    fits_standard: bool = False


@dataclass(slots=True, kw_only=True)
class MigratedAll:
    """The result for all endpoints: `tally` counts each `Migration`, and `column` is the state of the column now.

    `also_standard` counts endpoints that sign in `x-webhook` with a secret that would be valid for `standard`, too.
    `is_final`: this run made PostgreSQL refuse plaintext.
    """

    column: PlaintextColumn
    tally: Tally
    also_standard: int = 0
    emptied: int = 0
    is_final: bool = False


async def migrate_all(
    operator: Operator,
    further: Further,
    scheme: Scheme,
    *,
    is_dry: bool,
    finalize: bool,
    report: Report,
    on_progress: OnProgress | None = None,
) -> MigratedAll:
    """Migrate every endpoint that has a plaintext secret, several at the same time, each in a transaction of its own.

    With `finalize` none is migrated: each must be sealed already, and if all are, the column is emptied, and PostgreSQL
    refuses plaintext from then on. `is_dry` only examines them. Raises `SecretDenied` if this role may not read
    plaintext, `Refused` if an endpoint is to be finalized before it is migrated, and what `side_by_side` and
    `Tally.attempt` raise.
    """
    column = await _column(operator)
    if column is PlaintextColumn.GONE:
        return MigratedAll(column=column, tally=Tally("endpoint", report))
    await migrate_secrets.require_readable(operator.connection)
    if finalize and (left := await migrate_secrets.count_unmigrated(operator.connection)):
        have = plural(left, "endpoint has", "endpoints have")
        raise Refused(f"{have} a plaintext secret that is not sealed", advice=_FIRST)
    total = await migrate_secrets.count_plaintext(operator.connection)
    labels = _DRY_RUN_LABELS if is_dry else None
    tally = Tally("endpoint", report, total=total, labels=labels, on_progress=on_progress)
    found = MigratedAll(column=column, tally=tally)

    async def work(operator: Operator, endpoint: PlaintextEndpoint) -> str:
        migrated = await (preview if is_dry or finalize else migrate_endpoint)(operator, endpoint, scheme)
        if finalize and migrated.what is Migration.MIGRATED:  # it was added after they were counted
            raise Refused("it is not migrated", advice=_FIRST)
        found.also_standard += migrated.fits_standard
        return migrated.what

    async def one(operator: Operator, endpoint: PlaintextEndpoint) -> None:
        place = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.endpoint_id}
        what = await tally.attempt(operator, place, work(operator, endpoint))
        if is_dry and what is not None:
            report(f"{endpoint.tenant_id} {endpoint.endpoint_id}: {_DRY_RUN_LABELS[what]}")

    await side_by_side(operator, further, migrate_secrets.iterate(operator.connection), one)
    tally.end()
    if finalize and not is_dry and not tally.failures:
        await _finalize(operator, further, found)
    found.column = await _column(operator)
    return found


async def _finalize(operator: Operator, further: Further, found: MigratedAll) -> None:
    async def one(operator: Operator, batch: tuple[PlaintextEndpoint, ...]) -> None:
        emptied = await empty_batch(operator, batch)
        found.emptied += emptied  # after the await, because other tasks add to it, too

    await side_by_side(operator, further, _batches(operator), one)
    found.is_final = await forbid_plaintext(operator, emptied=found.emptied)


async def _batches(operator: Operator) -> AsyncGenerator[tuple[PlaintextEndpoint, ...], None]:
    batch: list[PlaintextEndpoint] = []
    async for endpoint in migrate_secrets.iterate(operator.connection):
        batch.append(endpoint)
        if len(batch) == EMPTIED_AT_ONCE:
            yield tuple(batch)
            batch.clear()
    if batch:
        yield tuple(batch)


async def _column(operator: Operator) -> PlaintextColumn:
    found = await schema.state(operator.connection)
    return PlaintextColumn.GONE if found is None else found  # never None: the schema was compared


async def migrate_endpoint(
    operator: Operator, endpoint: PlaintextEndpoint, scheme: Scheme = migrate_secrets.SCHEME
) -> Migrated:
    """Seal the plaintext of the endpoint as its first secret, byte for byte, for that scheme; or change nothing.

    The plaintext stays in its column until `empty_batch`. If deliveries wait for the secret, the endpoint is probed at
    once. Raises what `secrets.migrate_secrets.seal_plaintext` and `require_same` raise, `Refused` if PostgreSQL refuses
    the change of the row, and `Unavailable`.
    """
    async with _changing(operator) as connection:
        return await _migrate(operator, connection, endpoint, scheme, is_dry=False)


async def preview(operator: Operator, endpoint: PlaintextEndpoint, scheme: Scheme = migrate_secrets.SCHEME) -> Migrated:
    """Return, or raise, what `migrate_endpoint` would for this endpoint; nothing is written."""
    async with _changing(operator) as connection:
        return await _migrate(operator, connection, endpoint, scheme, is_dry=True)


async def empty_batch(operator: Operator, endpoints: Sequence[PlaintextEndpoint]) -> int:
    """Check that the plaintext of each endpoint is sealed, and empty the column; return how many had a plaintext.

    It empties all of them or none. Raises as `migrate_endpoint`, and `Refused` for an endpoint that is not migrated.
    """
    async with _changing(operator) as connection:
        checked: list[PlaintextEndpoint] = []
        for each in endpoints:
            match await _check(operator, connection, each):
                case Migration.PRESENT:
                    checked.append(each)
                case Migration.MIGRATED:
                    raise Refused(
                        f"{each.tenant_id} {each.endpoint_id} is not migrated", advice="run `hookseal migrate-secrets`"
                    )
                case Migration.GONE:
                    continue
        emptied = await migrate_secrets.empty(connection, checked)
        if emptied:
            await operator.audit(Action.PLAINTEXT_EMPTIED, of=_SUBJECT, after={"endpoints": emptied})
    return emptied


async def forbid_plaintext(operator: Operator, *, emptied: int) -> bool:
    """Make PostgreSQL refuse plaintext from now on; return False if it does already, or if the column is gone.

    `emptied` is for the audit row: how many rows this run emptied. Raises `Refused` if an endpoint has a plaintext
    secret, and `Unavailable`, also if it cannot lock the table within two seconds.
    """
    async with _changing(operator) as connection:
        if await schema.state(connection) is not PlaintextColumn.THERE:
            return False
        try:
            await migrate_secrets.forbid(connection)
        except asyncpg.CheckViolationError:
            raise Refused(_NEW_PLAINTEXT) from None
        await operator.audit(Action.PLAINTEXT_FORBIDDEN, of=_SUBJECT, after={"emptied_endpoints": emptied})
    return True


async def _check(operator: Operator, connection: Connection, endpoint: PlaintextEndpoint) -> Migration:
    try:
        return (await _migrate(operator, connection, endpoint, migrate_secrets.SCHEME, is_dry=True)).what
    except (Conflict, Malformed, SecretError) as error:
        raise Refused(
            f"{endpoint.tenant_id} {endpoint.endpoint_id}: {error}", advice=error.advice, joint=error.joint
        ) from None


async def _migrate(
    operator: Operator, connection: Connection, endpoint: PlaintextEndpoint, scheme: Scheme, *, is_dry: bool
) -> Migrated:
    locked = await migrate_secrets.lock(connection, endpoint)
    if locked is None:
        return Migrated(what=Migration.GONE)
    found, secret = locked.pointer, locked.secret
    fits = fits_standard(secret)
    store, integrity = operator.unlocked.store_on(connection), operator.unlocked.integrity
    if found.secret_ref is not None:
        await migrate_secrets.require_same(store, integrity, found, secret)
        return Migrated(what=Migration.PRESENT, fits_standard=fits and found.scheme == Scheme.X_WEBHOOK)
    migrated = Migrated(what=Migration.MIGRATED, fits_standard=fits and scheme is Scheme.X_WEBHOOK)
    if is_dry:
        migrate_secrets.require_sealable(secret, found, scheme)
        await migrate_secrets.require_unsealed(store, found)
        return migrated
    after = await migrate_secrets.seal_plaintext(
        connection, store, integrity, found=found, secret=secret, scheme=scheme
    )
    if locked.some_wait:
        await held.probe(connection, found.tenant_id, found.endpoint_id)
    facts = {"host": host(after.url), "key_id": await operator.unlocked.sealing_key_id(connection)}
    await operator.audit(Action.SECRET_MIGRATED, of=after, before=signing(found), after=signing(after) | facts)
    return migrated


@asynccontextmanager
async def _changing(operator: Operator) -> AsyncIterator[Connection]:
    """Yield the connection in a transaction, as `Operator.changing` does.

    It replaces errors of PostgreSQL about a row, because their text may contain the row, with its plaintext.
    """
    try:
        async with operator.changing() as connection:
            yield connection
    except asyncpg.PostgresError as error:
        if isinstance(error, (*OUTAGES, asyncpg.InsufficientPrivilegeError)):
            raise
        raise Refused(
            f"PostgreSQL refuses the change of this row ({type(error).__name__}): find out which constraint or "
            "trigger of yours causes it"
        ) from None
