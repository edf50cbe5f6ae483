"""Reads, locks and moves the pointer of an endpoint. Each move raises the generation and writes a new MAC."""

import dataclasses
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import asyncpg
from msgspec.structs import replace

from hookseal.errors import Conflict, NotFound, SecretDenied, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.trust import IntegrityKey, require_own
from hookseal.secrets.statements import FAILURES

HIGHEST_GENERATION: Final = 2**63 - 1

_DENIED: Final = (
    "this SQL role may not change an endpoint so: log in as an operator (hookseal_operator); the role of a worker may "
    "only rotate with an overlap of a day or longer, once the last overlap is over, as a rotation by schedule does"
)
_SQL: Final = Statements(
    "hookseal.secrets.endpoint",
    "pointer.sql",
    failures=dataclasses.replace(FAILURES, denied=partial(SecretDenied, _DENIED)),
)
_PAGE: Final = 500
# What the statements `direct` and `move` write, in the order of their arguments.
_DIRECTED: Final = ("url", "scheme", "algorithm", "lead", "headers_ref", "tls_ref")
_SIGNS: Final = (
    *("secret_ref", "previous_secret_ref", "previous_secret_expires_at", "previous_scheme", "previous_algorithm"),
    *("generation", "mac", "mac_key_id"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialSecrets:
    """The refs of a new endpoint: its signing secret with scheme and algorithm, header values and TLS identity."""

    ref: SecretRef
    scheme: Scheme
    algorithm: Algorithm
    headers: SecretRef | None = None
    tls: SecretRef | None = None


async def lock(connection: Connection, *, tenant: TenantId, endpoint_id: EndpointId) -> Pointer:
    """Lock the endpoint's row and return its pointer: until the transaction ends, nobody else moves or claims it.

    Raises `NotFound` if the tenant has no such endpoint, and `SecretUnavailable`.
    """
    row = await _SQL.row(connection, "lock", tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    return Pointer(**row)


async def iterate(source: Executor, tenant: TenantId | None = None) -> AsyncGenerator[Pointer, None]:
    """Yield the pointers of one tenant, or of all, ordered by tenant and id. Raises `SecretUnavailable`."""
    after = ("", "00000000-0000-0000-0000-000000000000")
    while True:
        rows = await _SQL.rows(source, "page", tenant, *after, _PAGE)
        for row in rows:
            yield Pointer(**row)
        if len(rows) < _PAGE:
            return
        after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


async def move(
    connection: Connection,
    integrity: IntegrityKey,
    row: Pointer,
    *,
    beyond: int = 0,
    is_same_secret: bool = False,
    **changes: Any,
) -> Pointer:
    """Store the locked pointer with these fields changed, a higher generation and a new MAC; return it.

    The caller must audit the new generation in the same transaction, or the row sends nothing; the returned pointer has
    it as audited. The new generation is also above `beyond`. `is_same_secret`: a new ref names the same material, so
    the time from which a scheduled rotation counts does not change. Raises `Conflict` if another endpoint of the tenant
    has the new url, `SecretTampered` if there is no higher generation, and `SecretUnavailable`.
    """
    generation = _next(max(row.generation, beyond))
    unsigned = replace(row, **changes, generation=generation, audited_generation=generation)
    moved = replace(unsigned, mac=integrity.mac(unsigned), mac_key_id=integrity.key_id)
    provider = None if moved.secret_ref is None else SecretRef.parse(moved.secret_ref).provider.value
    key = (moved.tenant_id, moved.endpoint_id)
    directed = tuple(getattr(moved, name) for name in _DIRECTED)
    try:
        if directed != tuple(getattr(row, name) for name in _DIRECTED):
            await _SQL.execute(connection, "direct", *key, *directed)
        signs = (getattr(moved, name) for name in _SIGNS)
        await _SQL.execute(connection, "move", *key, *signs, provider, is_same_secret)
    except asyncpg.UniqueViolationError:
        raise Conflict("the tenant already has an endpoint with this url", field="url") from None
    return moved


def _next(generation: int) -> int:
    if generation >= HIGHEST_GENERATION:
        raise SecretTampered(
            "no generation is above that which the audit log knows, so somebody forged a row of it",
            advice="find out who with `hookseal audit verify`, then delete the endpoint and add it again",
        )
    return generation + 1


async def set_initial(
    connection: Connection,
    integrity: IntegrityKey,
    *,
    tenant: TenantId,
    endpoint_id: EndpointId,
    to: InitialSecrets,
) -> Pointer:
    """Set the first secret of the endpoint, and its header values and TLS identity if any; return the pointer.

    All of it happens in the caller's transaction. Raises `SecretDenied` if a ref belongs to another tenant or endpoint,
    `NotFound` if there is no such endpoint, `Conflict` if it has or had a secret, or if another endpoint had its id
    before, and `SecretUnavailable`.
    """
    refs = {
        Purpose.WEBHOOK_SIGNING: to.ref,
        Purpose.ENDPOINT_HEADERS: to.headers,
        Purpose.ENDPOINT_TLS: to.tls,
    }
    for purpose, ref in refs.items():
        if ref is not None:
            require_own(ref, tenant=tenant, endpoint_id=endpoint_id, purpose=purpose)
    row = await lock(connection, tenant=tenant, endpoint_id=endpoint_id)
    if row.secret_ref is not None or row.previous_secret_ref is not None or row.generation != 0:
        raise Conflict("the endpoint has a secret already: rotate it", field="endpoint_id")
    if row.audited_generation is not None:  # below it, the row would look stale
        raise Conflict(
            "an endpoint with this id was there before: leave the id out, or take another", field="endpoint_id"
        )
    return await move(
        connection,
        integrity,
        row,
        secret_ref=str(to.ref),
        scheme=to.scheme.value,
        algorithm=to.algorithm.value,
        headers_ref=None if to.headers is None else str(to.headers),
        tls_ref=None if to.tls is None else str(to.tls),
    )


def generation_after(*known: int | None) -> int:
    """Return a generation above all of these, but at most the highest one: a generation may be forged."""
    return min(max(generation or 0 for generation in known), HIGHEST_GENERATION - 1) + 1


async def time_after(connection: Connection, seconds: float) -> datetime:
    """Return the time `seconds` after the start of the transaction, by the database's clock."""
    at: datetime = await _SQL.value(connection, "time_after", float(seconds))
    return at
