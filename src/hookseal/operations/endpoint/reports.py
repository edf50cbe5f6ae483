"""Reports to an operator which secrets sign for an endpoint, which versions there are, and their public keys."""

from contextlib import nullcontext
from typing import Any, Final

from hookseal.dispatcher.store import delivery_queries, held
from hookseal.dispatcher.store.delivery_queries import Use
from hookseal.errors import Refused, SecretUnusable
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.core.signing import public_key_of
from hookseal.secrets.core.trust import Due, GenerationsSeen, require_secret, require_trusted
from hookseal.secrets.endpoint import pointer, rotation, schedule
from hookseal.secrets.endpoint.schedule import Scheduled
from hookseal.secrets.store import version_report
from hookseal.secrets.store.port import SecretStore, VersionState

_ROTATIONS: Final = 10


async def rotation_state(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> dict[str, Any]:
    """Return which secrets sign, the rest of the overlap, older claims, the schedule, and the last ten rotations.

    Raises `NotFound`, `SecretUnavailable` and `Unavailable`.
    """
    state = await rotation.status(connection, tenant, endpoint_id, limit=_ROTATIONS)
    older = await held.older_claims(connection, tenant, endpoint_id, state["generation"])
    due = await schedule.of_endpoint(connection, tenant, endpoint_id)
    return state | {"older_claims": older, "schedule": None if due is None else _schedule(due)}


async def versions(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> list[dict[str, Any]]:
    """Return every version of the endpoint's secret, oldest first, without material: its use, and if it is needed.

    Raises `NotFound`, `SecretUnavailable` and `Unavailable`.
    """
    # In one snapshot, so that the versions that sign and the requests in flight fit each other.
    is_joined = connection.is_in_transaction()
    snapshot = nullcontext() if is_joined else connection.transaction(isolation="repeatable_read", readonly=True)
    async with snapshot:
        rows = await version_report.of_endpoint(connection, tenant, endpoint_id)
        uses = await delivery_queries.of_endpoint(connection, tenant, endpoint_id)
    return [_version(version, uses.get(version["ref"], Use())) for version in rows]


async def public_keys(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> dict[str, Any]:
    """Return the public key of the current secret, and of the previous one while an overlap runs.

    Raises `NotFound`, `Refused` if neither has one, `CannotSign` for a row that was altered, and `Unavailable`.
    """
    async with operator.changing() as connection:  # the row is locked, so that no rotation changes it meanwhile
        row = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        require_secret(row)
        # On this connection: it sees a change of the caller's transaction, and no second one is taken from the pool.
        store = operator.unlocked.store_on(connection)
        versions = require_trusted(
            row, key=operator.unlocked.integrity, seen=GenerationsSeen(), providers=store.providers
        )
        keys = [await _public_key(store, version) for version in versions]
    if not any(keys):
        raise Refused(
            f"the endpoint signs with {Algorithm.HMAC}, which has no public key",
            advice=f"`hookseal endpoint rotate --algorithm {Algorithm.ED25519}` gives it one",
            field="endpoint_id",
        )
    return _public_keys(row, keys)


def _schedule(due: Scheduled) -> dict[str, Any]:
    return {
        "rotate_every_days": due.rotate_every_days,
        "due_at": due.due_at,
        "announced_at": due.announced_at if due.is_announced else None,
        "rotates_at": due.rotates_at if due.is_announced else None,
    }


def _version(version: dict[str, Any], use: Use) -> dict[str, Any]:
    need = version_report.need(
        VersionState(version["state"]),
        signs=version["signs"],
        signs_until=version["signs_until"],
        claims_in_flight=use.claims_in_flight,
        named_by_old_row=version.pop("named_by_old_row"),
    )
    return version | {
        "claims_in_flight": use.claims_in_flight,
        "attempts": use.attempts,
        "last_signed_at": use.last_signed_at,
        "needed": need.needed,
        "reason": need.reason,
    }


async def _public_key(store: SecretStore, version: Due) -> str | None:
    """Return the public key of the version, None with HMAC. Raises `SecretUnusable`, and what the store raises."""
    if version.algorithm is not Algorithm.ED25519:
        return None
    key = public_key_of(await store.get(version.ref, purpose=Purpose.WEBHOOK_SIGNING))
    if key is None:
        raise SecretUnusable(f"the stored secret is no key pair of {Algorithm.ED25519}: rotate it")
    return key


def _public_keys(row: Pointer, keys: list[str | None]) -> dict[str, Any]:
    current, previous = keys if row.previous_due else (keys[0], None)
    return {
        "tenant_id": row.tenant_id,
        "endpoint_id": row.endpoint_id,
        "generation": row.generation,
        "secret_ref": row.secret_ref,
        "public_key": current,
        "previous_secret_ref": row.previous_secret_ref if row.previous_due else None,
        "previous_secret_expires_at": row.previous_secret_expires_at if row.previous_due else None,
        "previous_public_key": previous,
    }
