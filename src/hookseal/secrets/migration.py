"""The plaintext secrets of an older system: where they are, whether they may be sealed, or are."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.ground.errors import Conflict, Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.schema.database import ANSWER_SECONDS, Connection, Executor
from hookseal.secrets import pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDenied, SecretTampered
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.signer import require_signing_secret
from hookseal.secrets.store import SecretStore, VersionState

SCHEME: Final = Scheme.X_WEBHOOK
ALGORITHM: Final = Algorithm.HMAC
PAGE: Final = 1_000

_SQL: Final = statements("hookseal.secrets", "migration.sql")
_LATER: Final = (
    "the plaintext is none of the secrets that are sealed for this endpoint: somebody wrote it after it was migrated"
)
_DESTROYED_OR_LATER: Final = (
    "the plaintext is none of the secrets of this endpoint that can still be opened: it was one whose material is "
    "destroyed by now, and signs nothing any more, or somebody wrote it after it was migrated"
)
_BY_ROTATION: Final = "To sign with it use `hookseal endpoint rotate --scheme x-webhook --secret-file F`"
_BY_IMPORT: Final = (
    "It is shorter than a rotation takes: give the receiver a longer one with `hookseal endpoint rotate`; or, to sign "
    "with it, `hookseal endpoint delete`, which cancels what is pending, and `hookseal import-endpoints` without the id"
)
_BY_NOTHING: Final = "It signs in no way: give the endpoint another one with `hookseal endpoint rotate` if it needs one"
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True)
class Held:
    """An endpoint whose row holds a plaintext secret."""

    tenant_id: TenantId
    endpoint_id: EndpointId


async def require_readable(source: Executor) -> None:
    """Return only if this SQL role may read plaintext; the column must be there.

    Raises `SecretDenied`, `SecretUnavailable`.
    """
    with outages_translated():
        may_read: bool = await source.fetchval(_SQL["may_read"], timeout=ANSWER_SECONDS)
    if not may_read:
        raise SecretDenied("this SQL role may not read plaintext secrets: log in with one that has hookseal_operator")


async def unmigrated(source: Executor) -> int:
    """Return how many endpoints have a plaintext secret and none that is sealed. Raises `SecretUnavailable`."""
    return await _number(source, "unmigrated")


async def held(source: Executor) -> int:
    """Return how many endpoints have a plaintext secret. Raises `SecretUnavailable`."""
    return await _number(source, "held")


async def every(source: Executor) -> AsyncGenerator[Held, None]:
    """Yield every endpoint that has a plaintext secret, in their order, a page at a time. Raises `SecretUnavailable`.

    The column must be there.
    """
    after = _BEGINNING
    while True:
        with outages_translated():
            rows = await source.fetch(_SQL["page"], *after, PAGE)
        for row in rows:
            yield Held(row["tenant_id"], row["endpoint_id"])
        if len(rows) < PAGE:
            return
        after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A row that holds a plaintext: its pointer, that plaintext byte for byte, and whether a delivery is held back."""

    pointer: Pointer
    secret: SecretMaterial
    some_wait: bool


async def locked(connection: Connection, wanted: Held) -> Locked | None:
    """Return what stands in the row, which nobody else moves until the caller's transaction ends.

    None if the endpoint has no plaintext any more, or is gone. Raises `SecretDenied` without the right,
    `SecretUnavailable`.
    """
    with outages_translated():
        row = await connection.fetchrow(_SQL["lock"], wanted.tenant_id, wanted.endpoint_id)
    if row is None or row["plaintext"] is None:
        return None
    columns = dict(row)
    secret, some_wait = SecretMaterial(columns.pop("plaintext")), columns.pop("some_wait")
    return Locked(pointer=Pointer(**columns), secret=secret, some_wait=some_wait)


def require_sealable(secret: SecretMaterial, found: Pointer, scheme: Scheme = SCHEME) -> None:
    """Return only if this plaintext may become the first secret of the row, signing in that scheme.

    Raises `Malformed` if it is nothing that signs so, and `SecretTampered` if hookseal has written the
    row before: whoever emptied it, and put a plaintext there, would decide what signs from now on.
    """
    if found.audited_generation is not None:
        raise SecretTampered(
            "the audit log knows this endpoint, so its row was put back or emptied: find out by whom, then "
            "`hookseal endpoint delete` it and add or import it again"
        )
    ours = (found.previous_secret_ref, found.previous_secret_expires_at, found.headers_ref, found.tls_ref, found.mac)
    if found.generation != 0 or any(value is not None for value in ours):
        raise SecretTampered(
            "the row has no secret_ref, and other columns that hookseal alone writes are set (generation, mac, "
            "headers_ref, tls_ref, previous_secret_...): empty them, or delete the endpoint and import it again"
        )
    if not len(secret):
        raise Conflict("the plaintext is empty: give the endpoint a secret, or empty the column (NULL)", field="secret")
    require_signing_secret(secret, scheme, ALGORITHM, is_older=True)


async def sealed(
    connection: Connection,
    store: SecretStore,
    integrity: IntegrityKey,
    *,
    found: Pointer,
    secret: SecretMaterial,
    scheme: Scheme = SCHEME,
) -> Pointer:
    """Seal the plaintext of the locked row as its first secret, read it back, and only then point the row at it.

    All of it in the caller's transaction, in which the store writes, too. Raises as `require_sealable`; `Conflict` if
    a secret of that endpoint is sealed already, `SecretTampered` if what was sealed does not open to the same, what
    the store raises, `SecretUnavailable`.
    """
    require_sealable(secret, found, scheme)
    name = endpoint_secret_name(found.endpoint_id)
    try:
        ref = await store.put(found.tenant_id, name, secret, purpose=Purpose.WEBHOOK_SIGNING, scheme=scheme.value)
    except Conflict:
        raise _already_sealed() from None
    if await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING) != secret:
        raise SecretTampered("what was sealed does not open to what was given: nothing was changed")
    return await pointer.moved(
        connection, integrity, found, secret_ref=str(ref), scheme=scheme.value, algorithm=ALGORITHM.value
    )


async def require_unsealed(store: SecretStore, found: Pointer) -> None:
    """Return only if the store never had a secret of this endpoint. Raises `Conflict`, and what the store raises."""
    if await store.versions(found.tenant_id, endpoint_secret_name(found.endpoint_id)):
        raise _already_sealed()


async def require_same(store: SecretStore, integrity: IntegrityKey, found: Pointer, secret: SecretMaterial) -> None:
    """Return only if the plaintext of the locked row is sealed: as its current secret, or one that it had before.

    Raises `Conflict` if it is not, `SecretTampered` if the row is not genuine, what the store raises.
    """
    if found.mac is None:
        raise SecretTampered(
            "the row names a secret, and has no MAC, so hookseal did not write it: empty its secret_ref (NULL), or "
            "delete the endpoint and import it again"
        )
    integrity.verify(found)
    current = SecretRef.parse(found.secret_ref or "")
    pointer.require_own(current, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    if await store.get(current, purpose=Purpose.WEBHOOK_SIGNING) == secret:
        return
    is_destroyed = False
    for version in reversed(await store.versions(current.tenant, current.name)):  # it was rotated since
        if version.state is VersionState.DESTROYED:
            is_destroyed = True
        elif version.ref != current and await store.get(version.ref, purpose=Purpose.WEBHOOK_SIGNING) == secret:
            return
    origin = _DESTROYED_OR_LATER if is_destroyed else _LATER
    raise Conflict(f"{origin}. {_to_sign_with(secret)}, else empty the column of this row (NULL)", field="secret")


async def empty(connection: Connection, checked: Sequence[Held]) -> int:
    """Empty the column in these rows, which the caller has locked and compared; return how many held something.

    Raises `SecretDenied` without the right, `SecretUnavailable`.
    """
    with outages_translated():
        status = await connection.execute(
            _SQL["empty"], [row.tenant_id for row in checked], [row.endpoint_id for row in checked]
        )
    return int(status.rpartition(" ")[2])


async def forbid(connection: Connection) -> None:
    """Have PostgreSQL refuse plaintext from now on, in the caller's transaction.

    It waits two seconds at most for those who use the table, while everybody else waits behind. Raises
    `SecretDenied` without the right, `SecretUnavailable`, and passes the `asyncpg.CheckViolationError` of a row that
    has plaintext.
    """
    with outages_translated():
        await connection.execute(_SQL["wait_shortly"])
        await connection.execute(_SQL["forbid"])


def _to_sign_with(secret: SecretMaterial) -> str:
    """Say how that plaintext, which is not sealed, comes to sign for its endpoint."""
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
        field="endpoint",
    )


async def _number(source: Executor, name: str) -> int:
    with outages_translated():
        number: int = await source.fetchval(_SQL[name], timeout=ANSWER_SECONDS)
    return number
