"""Rotates an endpoint's secret in the caller's transaction: new version, states, pointer and stored answer.

All of it is committed together, so a process that dies at any point leaves the old or the new state. The first
statement locks the endpoint's row `FOR UPDATE`, so rotations of one endpoint run one after the other, and no claim
reads the row meanwhile.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.errors import Conflict, Malformed, NotFound, SecretDestroyed, SecretNotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme, framed
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of, require_signing_secret
from hookseal.secrets.core.trust import IntegrityKey, require_known, require_own
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records
from hookseal.secrets.store.port import SecretStore, VersionState

_SQL: Final = statements("rotation.sql", package="hookseal.secrets.endpoint")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_FINGERPRINT_LABEL: Final = b"hookseal.rotation.secret.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationRequest:
    """What an operator asks for; without a scheme or an algorithm the endpoint keeps its own.

    `given`: the operator chose the secret, so exactly that one is used. Otherwise the caller generated it, and it is
    replaced by a new one if it does not suit the endpoint's algorithm.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    overlap_seconds: int
    secret: SecretMaterial
    given: bool = False
    rotation_id: str | None = None
    expect_generation: int | None = None
    scheme: Scheme | None = None
    algorithm: Algorithm | None = None
    lead: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationResult:
    """The result of a rotation, for its first run and for each repeat of its id.

    `before` and `after` are the pointer before and after the rotation, both None for a repeat. `secret` is None if the
    version is no longer active, and for ed25519: there the receiver needs the `public_key` only.
    """

    before: Pointer | None
    after: Pointer | None
    secret_ref: str
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    generation: int
    rotation_id: str
    secret: SecretMaterial | None
    public_key: str | None = None


def require_id(text: str) -> str:
    """Return the rotation id if it is valid. Raises `Malformed`."""
    if not _ID.fullmatch(text):
        raise Malformed(
            "rotation id must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'", field="rotation_id"
        )
    return text


async def rotate_pointer(
    connection: Connection, store: SecretStore, integrity: IntegrityKey, request: RotationRequest
) -> RotationResult:
    """Make the requested secret the endpoint's current one; the store must write on the same connection.

    Raises `NotFound`, `SecretTampered` if the row was altered, `Conflict` (another generation than expected,
    a running overlap without `force`, an overlap although the material of the current secret is gone, a rotation id
    that was used with other arguments), `SecretUnusable` (it would keep a scheme or an algorithm of a later version),
    `Malformed` (a scheme without signatures of the algorithm, a given secret that does not fit both), what the store
    raises, and `SecretUnavailable`.
    """
    row = await pointer.lock(connection, tenant=request.tenant_id, endpoint_id=request.endpoint_id)
    integrity.verify(row)
    intent = _intent(request, integrity, integrity.key_id)
    if request.rotation_id is not None:
        repeated = await _repeated(connection, store, integrity, request)
        if repeated is not None:
            return repeated
    overlap.require_generation(row, request.expect_generation)
    overlap.require_rotatable(row, overlap_seconds=request.overlap_seconds, force=request.force)
    return await _add_version(connection, store, integrity, row=row, request=request, intent=intent)


async def roll_back(
    connection: Connection, store: SecretStore, integrity: IntegrityKey, row: Pointer, *, overlap_seconds: int
) -> Pointer:
    """Make the previous secret of the locked pointer current again; the other one signs during a new overlap.

    Raises `SecretTampered`, `Conflict` unless an overlap is running, or if a new overlap is asked for and the material
    of the current secret is gone, `SecretDestroyed` if that of the previous secret is gone, and `SecretUnavailable`.
    """
    integrity.verify(row)
    expires_at = await pointer.time_after(connection, overlap_seconds) if overlap_seconds else None
    changes = overlap.changes_of_rollback(row, expires_at=expires_at)
    if overlap_seconds:
        await _require_material(store, row, how="roll back")
    return await _move(connection, integrity, row, changes)


async def end_overlap(connection: Connection, integrity: IntegrityKey, row: Pointer) -> Pointer:
    """Retire the previous secret of the locked pointer. Raises `SecretTampered`, and `Conflict` if there is none."""
    integrity.verify(row)
    return await _move(connection, integrity, row, overlap.changes_of_end(row))


async def status(source: Executor, tenant: TenantId, endpoint_id: EndpointId, *, limit: int) -> dict[str, Any]:
    """Return which secrets sign for an endpoint, the rest of its overlap, and its last rotations, newest first.

    Raises `NotFound` if the tenant has no such endpoint, and `SecretUnavailable`.
    """
    row = await _SQL.row(source, "status", tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    rotations = await _SQL.rows(source, "latest", tenant, endpoint_id, limit)
    return dict(row) | {"rotations": [dict(rotation) for rotation in rotations]}


async def _add_version(
    connection: Connection,
    store: SecretStore,
    integrity: IntegrityKey,
    *,
    row: Pointer,
    request: RotationRequest,
    intent: str,
) -> RotationResult:
    scheme, algorithm = require_known(request.scheme or row.scheme, request.algorithm or row.algorithm)
    overlap.require_signable(scheme, algorithm)
    secret = _suitable(request, scheme, algorithm)
    if request.overlap_seconds:
        await _require_material(store, row, how="rotate")
    name = endpoint_secret_name(request.endpoint_id)
    purpose = Purpose.WEBHOOK_SIGNING
    try:
        ref = await store.rotate(request.tenant_id, name, secret, purpose=purpose, scheme=scheme.value)
    except SecretNotFound:  # every record is gone; `put` does not use a version number of the audit log again
        ref = await store.put(request.tenant_id, name, secret, purpose=purpose, scheme=scheme.value)
    expires_at = await pointer.time_after(connection, request.overlap_seconds) if request.overlap_seconds else None
    changes = overlap.changes_of_rotation(row, ref, how=(scheme, algorithm), lead=request.lead, expires_at=expires_at)
    after = await _move(connection, integrity, row, changes)
    rotation_id = request.rotation_id or await _SQL.value(connection, "new_id")
    answer = _answer(after, public_key_of(secret) if algorithm is Algorithm.ED25519 else None)
    stored = await _SQL.value(
        connection, "keep", request.tenant_id, rotation_id, request.endpoint_id, intent, ref.version, json.dumps(answer)
    )
    if stored is None:  # another endpoint used the id meanwhile; rotations of this endpoint wait for the row's lock
        raise _id_in_use()
    returned = secret if answer["public_key"] is None else None
    return RotationResult(before=row, after=after, rotation_id=rotation_id, secret=returned, **_fields(answer))


async def _require_material(store: SecretStore, row: Pointer, *, how: str) -> None:
    """Raise `Conflict` if the material of the current secret is gone: during an overlap nothing would be sent."""
    current = SecretRef.parse(row.secret_ref or "")
    states = {version.ref: version.state for version in await store.versions(current.tenant, current.name)}
    if states.get(current, VersionState.DESTROYED) is VersionState.DESTROYED:
        raise Conflict(
            "the material of the current secret is gone", advice=f"{how} with --overlap 0", field="overlap_seconds"
        )


def _suitable(request: RotationRequest, scheme: Scheme, algorithm: Algorithm) -> SecretMaterial:
    """Return the requested secret if it can sign; if it cannot and the operator did not choose it, a new one."""
    try:
        require_signing_secret(request.secret, scheme, algorithm)
    except Malformed:
        if request.given:
            raise
        return generate_signing_secret(algorithm)
    return request.secret


async def _move(connection: Connection, integrity: IntegrityKey, row: Pointer, changes: dict[str, Any]) -> Pointer:
    """Move the pointer, and set the states of the versions accordingly."""
    after = await pointer.move(connection, integrity, row, **changes)
    previous = None if after.previous_secret_ref is None else SecretRef.parse(after.previous_secret_ref)
    await records.arrange(connection, active=SecretRef.parse(after.secret_ref or ""), previous=previous)
    return after


async def _repeated(
    connection: Connection, store: SecretStore, integrity: IntegrityKey, request: RotationRequest
) -> RotationResult | None:
    """Return the stored answer of this rotation id, None if the id is new."""
    row = await _SQL.row(connection, "find", request.tenant_id, request.rotation_id)
    if row is None:
        return None
    asked = json.loads(row["intent"])
    if not integrity.knows(asked["key_id"]) or asked != json.loads(_intent(request, integrity, asked["key_id"])):
        raise _id_in_use()
    fields = _fields(json.loads(row["answer"]))
    ref = SecretRef.parse(str(fields["secret_ref"]))
    # The row has no MAC, so the public key is derived from the secret itself.
    require_own(ref, tenant=request.tenant_id, endpoint_id=request.endpoint_id)
    secret = await _if_active(store, ref)
    pair = secret if secret is not None or fields["public_key"] is None else await _unless_destroyed(store, ref)
    public_key = None if pair is None else public_key_of(pair)
    keys = {"secret": secret if public_key is None else None, "public_key": public_key}
    return RotationResult(before=None, after=None, rotation_id=request.rotation_id or "", **fields | keys)


async def _if_active(store: SecretStore, ref: SecretRef) -> SecretMaterial | None:
    versions = await store.versions(ref.tenant, ref.name)
    if not any(version.ref == ref and version.state == "active" for version in versions):
        return None
    return await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)


async def _unless_destroyed(store: SecretStore, ref: SecretRef) -> SecretMaterial | None:
    try:
        return await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    except SecretDestroyed:
        return None


def _id_in_use() -> Conflict:
    return Conflict("this rotation id was used with other arguments: take another one", field="rotation_id")


def _intent(request: RotationRequest, integrity: IntegrityKey, key_id: str) -> str:
    """Return the arguments as JSON; of a given secret only a fingerprint, under that version of the integrity key."""
    fingerprinted = framed(_FINGERPRINT_LABEL, request.secret.reveal()) if request.given else None
    return json.dumps(
        {
            "endpoint_id": request.endpoint_id,
            "overlap_seconds": request.overlap_seconds,
            "expect_generation": request.expect_generation,
            "scheme": None if request.scheme is None else request.scheme.value,
            "algorithm": None if request.algorithm is None else request.algorithm.value,
            "lead": request.lead,
            "force": request.force,
            "secret": None if fingerprinted is None else integrity.authenticate(fingerprinted, under=key_id)[:8].hex(),
            "key_id": key_id,
        }
    )


def _answer(after: Pointer, public_key: str | None) -> dict[str, Any]:
    expires_at = after.previous_secret_expires_at
    return {
        "secret_ref": after.secret_ref,
        "previous_secret_ref": after.previous_secret_ref,
        "previous_secret_expires_at": None if expires_at is None else expires_at.isoformat(),
        "generation": after.generation,
        "public_key": public_key,
    }


def _fields(answer: dict[str, Any]) -> dict[str, Any]:
    expires_at = answer["previous_secret_expires_at"]
    return answer | {"previous_secret_expires_at": None if expires_at is None else datetime.fromisoformat(expires_at)}
