"""Finds the plaintext secrets of an older system, seals them, and removes the plaintext."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.errors import Conflict, Malformed, SecretDenied, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import require_signing_secret
from hookseal.secrets.core.trust import IntegrityKey, require_own
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.statements import statements
from hookseal.secrets.store.port import SecretStore, VersionState

SCHEME: Final = Scheme.X_WEBHOOK
ALGORITHM: Final = Algorithm.HMAC
PAGE: Final = 1_000

_SQL: Final = statements("migrate_secrets.sql")
_LATER: Final = (
    "the plaintext is none of the secrets that are sealed for this endpoint: somebody wrote it after it was migrated"
)
_DESTROYED_OR_LATER: Final = (
    "the plaintext is none of the secrets of this endpoint that can still be opened: it was one whose material is "
    "destroyed by now, and signs nothing any more, or somebody wrote it after it was migrated"
)
_BY_ROTATION: Final = "To sign with it use `hookseal endpoint rotate --scheme x-webhook --secret-file FILE`"
_BY_IMPORT: Final = (
    "It is shorter than a rotation takes: give the receiver a longer one with `hookseal endpoint rotate`; or, to sign "
    "with it, `hookseal endpoint delete`, which cancels what is pending, and `hookseal import-endpoints` without the id"
)
_BY_NOTHING: Final = (
    "It cannot sign at all: give the endpoint another one with `hookseal endpoint rotate` if it needs one"
)
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True)
class PlaintextEndpoint:
    """An endpoint whose row holds a plaintext secret."""

    tenant_id: TenantId
    endpoint_id: EndpointId


async def require_readable(source: Executor) -> None:
    """Raise `SecretDenied` if this SQL role may not read plaintext, and `SecretUnavailable`.

    The column must exist.
    """
    may_read: bool = await _SQL.value(source, "may_read")
    if not may_read:
        raise SecretDenied("this SQL role may not read plaintext secrets: log in with one that has hookseal_operator")


async def count_unmigrated(source: Executor) -> int:
    """Return how many endpoints have a plaintext secret and no sealed one. Raises `SecretUnavailable`."""
    return await _number(source, "count_unmigrated")


async def count_plaintext(source: Executor) -> int:
    """Return how many endpoints have a plaintext secret. Raises `SecretUnavailable`."""
    return await _number(source, "count_plaintext")


async def iterate(source: Executor) -> AsyncGenerator[PlaintextEndpoint, None]:
    """Yield every endpoint that has a plaintext secret, ordered by tenant and id. Raises `SecretUnavailable`.

    The column must exist.
    """
    after = _BEGINNING
    while True:
        rows = await _SQL.rows(source, "page", *after, PAGE)
        for row in rows:
            yield PlaintextEndpoint(row["tenant_id"], row["endpoint_id"])
        if len(rows) < PAGE:
            return
        after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A locked row with a plaintext: its pointer, the plaintext byte for byte, and whether a delivery is held."""

    pointer: Pointer
    secret: SecretMaterial
    some_wait: bool


async def lock(connection: Connection, endpoint: PlaintextEndpoint) -> Locked | None:
    """Lock the row until the caller's transaction ends, and return its content.

    Returns None if the endpoint has no plaintext any more, or is gone. Raises `SecretDenied` without the right to read
    it, and `SecretUnavailable`.
    """
    row = await _SQL.row(connection, "lock", endpoint.tenant_id, endpoint.endpoint_id)
    if row is None or row["plaintext"] is None:
        return None
    columns = dict(row)
    secret, some_wait = SecretMaterial(columns.pop("plaintext")), columns.pop("some_wait")
    return Locked(pointer=Pointer(**columns), secret=secret, some_wait=some_wait)


def require_sealable(secret: SecretMaterial, found: Pointer, scheme: Scheme = SCHEME) -> None:
    """Raise an error unless this plaintext may become the first secret of the row, in that scheme.

    Raises `Malformed` if it cannot sign in the scheme, `Conflict` if it is empty, and `SecretTampered` if hookseal has
    written the row before: otherwise an attacker who empties the row and writes a plaintext would choose the secret.
    """
    if found.audited_generation is not None:
        raise SecretTampered(
            "the audit log knows this endpoint, so its row is stale or was emptied: find out who did it, then "
            "`hookseal endpoint delete` it and add or import it again"
        )
    own_columns = (
        found.previous_secret_ref,
        found.previous_secret_expires_at,
        found.headers_ref,
        found.tls_ref,
        found.mac,
    )
    if found.generation != 0 or any(value is not None for value in own_columns):
        raise SecretTampered(
            "the row has no secret_ref, and other columns that hookseal alone writes are set (generation, mac, "
            "headers_ref, tls_ref, previous_secret_...): empty them, or delete the endpoint and import it again"
        )
    if not len(secret):
        raise Conflict("the plaintext is empty: give the endpoint a secret, or empty the column (NULL)", field="secret")
    require_signing_secret(secret, scheme, ALGORITHM, is_older=True)


async def seal_plaintext(
    connection: Connection,
    store: SecretStore,
    integrity: IntegrityKey,
    *,
    found: Pointer,
    secret: SecretMaterial,
    scheme: Scheme = SCHEME,
) -> Pointer:
    """Seal the plaintext of the locked row as its first secret, read it back, and only then move the pointer to it.

    All of it happens in the caller's transaction; the store must write on the same connection. Raises as
    `require_sealable`; `Conflict` if a secret of that endpoint is sealed already, `SecretTampered` if the sealed secret
    opens to another value, what the store raises, and `SecretUnavailable`.
    """
    require_sealable(secret, found, scheme)
    name = endpoint_secret_name(found.endpoint_id)
    try:
        ref = await store.put(found.tenant_id, name, secret, purpose=Purpose.WEBHOOK_SIGNING, scheme=scheme.value)
    except Conflict:
        raise _already_sealed() from None
    if await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING) != secret:
        raise SecretTampered("the sealed secret opens to another value than the plaintext: nothing was changed")
    return await pointer.move(
        connection, integrity, found, secret_ref=str(ref), scheme=scheme.value, algorithm=ALGORITHM.value
    )


async def require_unsealed(store: SecretStore, found: Pointer) -> None:
    """Raise `Conflict` if the store has, or had, a secret of this endpoint. Raises what the store raises."""
    if await store.versions(found.tenant_id, endpoint_secret_name(found.endpoint_id)):
        raise _already_sealed()


async def require_same(store: SecretStore, integrity: IntegrityKey, found: Pointer, secret: SecretMaterial) -> None:
    """Raise `Conflict` unless the plaintext of the locked row is sealed as its current secret or an older one.

    Raises `SecretTampered` if the row is not genuine, and what the store raises.
    """
    if found.mac is None:
        raise SecretTampered(
            "the row names a secret, and has no MAC, so hookseal did not write it: empty its secret_ref (NULL), or "
            "delete the endpoint and import it again"
        )
    integrity.verify(found)
    current = SecretRef.parse(found.secret_ref or "")
    require_own(current, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    if await store.get(current, purpose=Purpose.WEBHOOK_SIGNING) == secret:
        return
    is_destroyed = False
    for version in reversed(await store.versions(current.tenant, current.name)):  # it may have been rotated since
        if version.state is VersionState.DESTROYED:
            is_destroyed = True
        elif version.ref != current and await store.get(version.ref, purpose=Purpose.WEBHOOK_SIGNING) == secret:
            return
    origin = _DESTROYED_OR_LATER if is_destroyed else _LATER
    raise Conflict(f"{origin}. {_to_sign_with(secret)}, else empty the column of this row (NULL)", field="secret")


async def empty(connection: Connection, checked: Sequence[PlaintextEndpoint]) -> int:
    """Empty the column in these rows, which the caller has locked and compared; return how many had a plaintext.

    Raises `SecretDenied` without the right, `SecretUnavailable`.
    """
    return await _SQL.execute(
        connection, "empty", [row.tenant_id for row in checked], [row.endpoint_id for row in checked]
    )


async def forbid(connection: Connection) -> None:
    """Have PostgreSQL refuse plaintext from now on, in the caller's transaction.

    It waits at most two seconds for the lock of the table, because all other statements on the table wait behind it.
    Raises `SecretDenied` without the right, `SecretUnavailable`, and `asyncpg.CheckViolationError` if a row has
    plaintext.
    """
    await _SQL.execute(connection, "wait_shortly")
    await _SQL.execute(connection, "forbid")


def _to_sign_with(secret: SecretMaterial) -> str:
    """Return what an operator can do so that the endpoint signs with this plaintext, which is not sealed."""
    for is_older, how in ((False, _BY_ROTATION), (True, _BY_IMPORT)):
        try:
            require_signing_secret(secret, SCHEME, ALGORITHM, is_older=is_older)
        except Malformed:
            continue
        return how
    return _BY_NOTHING


def _already_sealed() -> Conflict:
    return Conflict(
        "a secret of this endpoint is sealed already, and its row names none: find out who put it there, then "
        "`hookseal endpoint delete` the endpoint, which retires it, and add or import it again",
        field="endpoint_id",
    )


async def _number(source: Executor, name: str) -> int:
    number: int = await _SQL.value(source, name)
    return number
