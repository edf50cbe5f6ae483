"""Rotates an endpoint's secret in the caller's transaction: new version, states, pointer and the answer that is kept.

All of it becomes true at once or nothing does, so a process that dies at any point leaves the old or the
new state. Whoever moves a pointer holds its row `FOR UPDATE` from the first statement on, so rotations of
one endpoint come one after the other, and no claim reads it meanwhile (design, law 4).
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.ground.errors import Conflict, Malformed, NotFound
from hookseal.ground.framing import framed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.schema.database import Connection, Executor
from hookseal.secrets import overlap, pointer, versions
from hookseal.secrets.context import Purpose
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDestroyed, SecretNotFound
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.signer import generate_signing_secret, public_key_of, require_signing_secret
from hookseal.secrets.store import SecretStore, VersionState

_SQL: Final = statements("hookseal.secrets", "rotation.sql")
_FINGERPRINT_LABEL: Final = b"hookseal.rotation.secret.v1"
# What an older version did not ask, or answer, as it stands on record.
_NOT_YET_ASKED: Final = {"algorithm": None, "key_id": "1"}
_NOT_YET_ANSWERED: Final = {"public_key": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an operator asks of a rotation; without a scheme or an algorithm it stays as it is.

    `given` tells that the secret came from the operator, who means that one. Otherwise it was drawn by whoever
    asks, and gives way to another one if the endpoint turns out to sign with another algorithm.
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
class Rotated:
    """What a rotation led to, the first time and whenever its id is asked for again.

    `before` is the pointer that it found and `after` the one that it left, None for a repeat. `secret` is None once
    the version is not active, and for ed25519: there the receiver is given the `public_key`, while the pair is kept.
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


async def rotate(connection: Connection, store: SecretStore, integrity: IntegrityKey, wanted: Wanted) -> Rotated:
    """Make the wanted secret the endpoint's current one; the store must write on the same connection.

    Raises `NotFound`, `SecretTampered` if the row was altered, `Conflict` (another generation than expected,
    a running overlap without `force`, an overlap that the current secret has no material for, a rotation id that
    was used for something else), `Malformed` (a scheme that does not sign with the algorithm, a given secret that
    signs with neither), what the store raises, and `SecretUnavailable`.
    """
    found = await pointer.locked(connection, tenant=wanted.tenant_id, endpoint_id=wanted.endpoint_id)
    integrity.verify(found)
    intent = _intent(wanted, integrity, integrity.key_id)
    if wanted.rotation_id is not None:
        repeated = await _repeated(connection, store, integrity, wanted)
        if repeated is not None:
            return repeated
    overlap.require_generation(found, wanted.expect_generation)
    overlap.require_rotatable(found, overlap_seconds=wanted.overlap_seconds, force=wanted.force)
    return await _rotate(connection, store, integrity, found=found, wanted=wanted, intent=intent)


async def roll_back(
    connection: Connection, store: SecretStore, integrity: IntegrityKey, found: Pointer, *, overlap_seconds: int
) -> Pointer:
    """Make the previous secret of the locked pointer current again; what was current signs for an overlap of its own.

    Raises `SecretTampered`, `Conflict` unless an overlap runs, or for one that what was current could not sign
    through, `SecretDestroyed` if there is nothing to roll back to, and `SecretUnavailable`.
    """
    integrity.verify(found)
    expires_at = await pointer.moment(connection, overlap_seconds) if overlap_seconds else None
    changes = overlap.rolled_back(found, expires_at=expires_at)
    if overlap_seconds:
        await _require_material(store, found, how="roll back")
    return await _arranged(connection, integrity, found, changes)


async def end_overlap(connection: Connection, integrity: IntegrityKey, found: Pointer) -> Pointer:
    """Retire the previous secret of the locked pointer. Raises `SecretTampered`, `Conflict` if there is none."""
    integrity.verify(found)
    return await _arranged(connection, integrity, found, overlap.ended(found))


async def standing(source: Executor, tenant: TenantId, endpoint_id: EndpointId, *, limit: int) -> dict[str, Any]:
    """Return what signs for an endpoint, how long its overlap still runs, and its last rotations, newest first.

    Raises `NotFound` if the tenant has no such endpoint, and `SecretUnavailable`.
    """
    with outages_translated():
        row = await source.fetchrow(_SQL["standing"], tenant, endpoint_id)
        if row is None:
            raise NotFound("the tenant has no such endpoint", field="endpoint")
        rotations = await source.fetch(_SQL["latest"], tenant, endpoint_id, limit)
    return dict(row) | {"rotations": [dict(rotation) for rotation in rotations]}


async def _rotate(
    connection: Connection,
    store: SecretStore,
    integrity: IntegrityKey,
    *,
    found: Pointer,
    wanted: Wanted,
    intent: str,
) -> Rotated:
    scheme = Scheme(found.scheme) if wanted.scheme is None else wanted.scheme
    algorithm = Algorithm(found.algorithm) if wanted.algorithm is None else wanted.algorithm
    overlap.require_signable(scheme, algorithm)
    secret = _fitting(wanted, scheme, algorithm)
    if wanted.overlap_seconds:
        await _require_material(store, found, how="rotate")
    name = endpoint_secret_name(wanted.endpoint_id)
    purpose = Purpose.WEBHOOK_SIGNING
    try:
        ref = await store.rotate(wanted.tenant_id, name, secret, purpose=purpose, scheme=scheme.value)
    except SecretNotFound:  # every record of it is gone; a number that the audit log knows is not given again
        ref = await store.put(wanted.tenant_id, name, secret, purpose=purpose, scheme=scheme.value)
    expires_at = await pointer.moment(connection, wanted.overlap_seconds) if wanted.overlap_seconds else None
    changes = overlap.rotated(found, ref, how=(scheme, algorithm), lead=wanted.lead, expires_at=expires_at)
    after = await _arranged(connection, integrity, found, changes)
    with outages_translated():
        rotation_id = wanted.rotation_id or await connection.fetchval(_SQL["new_id"])
        answer = _answer(after, public_key_of(secret) if algorithm is Algorithm.ED25519 else None)
        kept = await connection.fetchval(
            _SQL["keep"], wanted.tenant_id, rotation_id, wanted.endpoint_id, intent, ref.version, json.dumps(answer)
        )
    if kept is None:  # only another endpoint's rotation can have taken it meanwhile: ours are behind the row's lock
        raise _used_otherwise()
    shown = secret if answer["public_key"] is None else None
    return Rotated(before=found, after=after, rotation_id=rotation_id, secret=shown, **_fields(answer))


async def _require_material(store: SecretStore, found: Pointer, *, how: str) -> None:
    """Return only if what is current can sign through an overlap: without its material nothing would be sent in it."""
    current = SecretRef.parse(found.secret_ref or "")
    states = {version.ref: version.state for version in await store.versions(current.tenant, current.name)}
    if states.get(current, VersionState.DESTROYED) is VersionState.DESTROYED:
        raise Conflict(f"the material of the current secret is gone: {how} with --overlap 0", field="overlap")


def _fitting(wanted: Wanted, scheme: Scheme, algorithm: Algorithm) -> SecretMaterial:
    """Return the wanted secret if it can sign so; if it was only drawn and cannot, another one."""
    try:
        require_signing_secret(wanted.secret, scheme, algorithm)
    except Malformed:
        if wanted.given:
            raise
        return generate_signing_secret(algorithm)
    return wanted.secret


async def _arranged(
    connection: Connection, integrity: IntegrityKey, found: Pointer, changes: dict[str, Any]
) -> Pointer:
    after = await pointer.moved(connection, integrity, found, **changes)
    previous = None if after.previous_secret_ref is None else SecretRef.parse(after.previous_secret_ref)
    await versions.arrange(connection, active=SecretRef.parse(after.secret_ref or ""), previous=previous)
    return after


async def _repeated(
    connection: Connection, store: SecretStore, integrity: IntegrityKey, wanted: Wanted
) -> Rotated | None:
    """Return the answer that was given for this rotation id, None if it was never used."""
    with outages_translated():
        row = await connection.fetchrow(_SQL["find"], wanted.tenant_id, wanted.rotation_id)
    if row is None:
        return None
    asked = _NOT_YET_ASKED | json.loads(row["intent"])
    if not integrity.knows(asked["key_id"]) or asked != json.loads(_intent(wanted, integrity, asked["key_id"])):
        raise _used_otherwise()
    fields = _fields(json.loads(row["answer"]))
    ref = SecretRef.parse(str(fields["secret_ref"]))
    # The row has no MAC: what a receiver is to trust comes from the secret itself.
    pointer.require_own(ref, tenant=wanted.tenant_id, endpoint_id=wanted.endpoint_id)
    secret = await _if_active(store, ref)
    pair = secret if secret is not None or fields["public_key"] is None else await _unless_destroyed(store, ref)
    public_key = None if pair is None else public_key_of(pair)
    given = {"secret": secret if public_key is None else None, "public_key": public_key}
    return Rotated(before=None, after=None, rotation_id=wanted.rotation_id or "", **fields | given)


async def _if_active(store: SecretStore, ref: SecretRef) -> SecretMaterial | None:
    known = await store.versions(ref.tenant, ref.name)
    if not any(version.ref == ref and version.state == "active" for version in known):
        return None
    return await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)


async def _unless_destroyed(store: SecretStore, ref: SecretRef) -> SecretMaterial | None:
    try:
        return await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    except SecretDestroyed:
        return None


def _used_otherwise() -> Conflict:
    return Conflict("this rotation id was used with other arguments: take another one", field="rotation_id")


def _intent(wanted: Wanted, integrity: IntegrityKey, key_id: str) -> str:
    """Return what was asked, as JSON; of a secret that was given, a fingerprint under that version of the key."""
    given = framed(_FINGERPRINT_LABEL, wanted.secret.reveal()) if wanted.given else None
    return json.dumps(
        {
            "endpoint_id": wanted.endpoint_id,
            "overlap_seconds": wanted.overlap_seconds,
            "expect_generation": wanted.expect_generation,
            "scheme": None if wanted.scheme is None else wanted.scheme.value,
            "algorithm": None if wanted.algorithm is None else wanted.algorithm.value,
            "lead": wanted.lead,
            "force": wanted.force,
            "secret": None if given is None else integrity.authenticate(given, under=key_id)[:8].hex(),
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
    fields = _NOT_YET_ANSWERED | answer
    return fields | {"previous_secret_expires_at": None if expires_at is None else datetime.fromisoformat(expires_at)}
