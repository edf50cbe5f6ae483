"""Adding and deleting an endpoint: its row, its sealed secret and the pointer from one to the other, or nothing."""

from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import endpoint_rules, endpoints, waiting
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.errors import Malformed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.secrets import endpoint_headers, endpoint_tls, overlap, pointer, tls_context, tls_identity, versions
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.signer import generate_signing_secret, public_key_of, require_signing_secret
from hookseal.secrets.tls_identity import TlsIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """The endpoint as it was stored. The secret is given out this once; of ed25519 receivers get the public key."""

    pointer: Pointer
    secret: SecretMaterial
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What an endpoint has beside its signing secret: headers of its own, and an identity in TLS."""

    headers: endpoint_headers.Headers = field(default_factory=dict)
    tls: TlsIdentity = endpoint_tls.NONE


NOTHING: Final = Beside()


async def add_endpoint(
    operator: Operator,
    endpoint: NewEndpoint,
    secret: SecretMaterial | None,
    *,
    own_drain_seconds: int,
    beside: Beside = NOTHING,
    is_older: bool = False,
) -> AddedEndpoint:
    """Store the endpoint with this signing secret, or a fresh one, and what is `beside` it, sealed; all or nothing.

    A secret that an older system made (`is_older`) may be shorter than others. Raises `Conflict` if the tenant has an
    endpoint with this url, or the given id was used before, `Refused` for a time-out that no drain lets
    end, `Malformed` for a secret that does not sign so, a header that may not be sent or a certificate that is not
    valid now, `Unavailable`.
    """
    overlap.require_signable(endpoint.scheme, endpoint.algorithm)
    material = generate_signing_secret(endpoint.algorithm) if secret is None else secret
    require_signing_secret(material, endpoint.scheme, endpoint.algorithm, is_older=is_older)
    named = replace(endpoint, header_names=tuple(sorted(beside.headers)), tls_shown=tls_identity.shown(beside.tls))
    async with operator.changing() as connection:
        await require_drainable(operator, endpoint.timeout_ms, own_drain_seconds=own_drain_seconds)
        endpoint_id = await endpoints.insert(connection, named)
        await require_usable(operator, beside.tls)
        first = await _sealed(operator, named, endpoint_id, secret=material, beside=beside)
        stored = await pointer.first(
            connection, operator.unlocked.integrity, tenant=endpoint.tenant_id, endpoint_id=endpoint_id, to=first
        )
        after = _facts(named, stored) | {"key_id": await operator.unlocked.sealing_key_id(connection)}
        await operator.tell(_change(Action.ENDPOINT_ADDED, stored, after=after))
    public_key = public_key_of(material) if endpoint.algorithm is Algorithm.ED25519 else None
    return AddedEndpoint(pointer=stored, secret=material, public_key=public_key)


async def delete_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Delete the endpoint, cancel what is pending for it, retire its secrets; return how many were cancelled.

    Its url is free again and its history stays. What is in flight may still be recorded. A row whose MAC
    does not hold is deleted too. Raises `NotFound`, `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        await endpoints.delete(connection, tenant, endpoint_id)
        cancelled = await waiting.cancel(connection, tenant, endpoint_id)
        await versions.retire(connection, _any_version(operator, found))
        for sealed in (endpoint_headers, endpoint_tls):
            await sealed.retire(connection, operator.unlocked.store, tenant=tenant, endpoint_id=endpoint_id)
        before = {
            "host": host(found.url),
            "generation": found.generation,
            "secret_ref": found.secret_ref,
            "previous_secret_ref": found.previous_secret_ref,
            "headers_ref": found.headers_ref,
            "tls_ref": found.tls_ref,
            "enabled": decided.enabled,
        }
        # A generation on, whatever was written into the row: one that somebody puts back is known to be old.
        gone = pointer.generation_after(found.generation, found.audited_generation)
        after = {"cancelled_deliveries": cancelled, "generation": gone}
        await operator.tell(_change(Action.ENDPOINT_DELETED, found, before=before, after=after))
    return cancelled


async def require_drainable(operator: Operator, timeout_ms: int, *, own_drain_seconds: int) -> None:
    """Return only if every live worker can end a request of so many ms within its drain.

    Where no worker lives, our own settings say how long a drain is. Raises `Refused`, `Unavailable`.
    """
    smallest = await endpoints.smallest_drain_seconds(operator.connection)
    endpoint_rules.require_drainable(timeout_ms, own_drain_seconds if smallest is None else smallest)


async def require_usable(operator: Operator, tls: TlsIdentity) -> None:
    """Return only if every certificate is valid now, by the database's clock, and OpenSSL takes all of them.

    Raises `Malformed`, `Unavailable`.
    """
    if tls.is_empty:
        return
    tls_identity.require_current(tls, await pointer.moment(operator.connection, 0.0))
    try:
        tls_context.context_of(tls)
    except SecretUnusable as error:
        raise Malformed(str(error), field="client_cert" if tls.client else "ca_file") from None


def host(url: str) -> str | None:
    """Return the host of a url, which is all of it that the audit log keeps: the rest may hold what is secret."""
    try:
        return urlsplit(url).hostname
    except ValueError:  # a row that was written by hand
        return None


async def _sealed(
    operator: Operator,
    endpoint: NewEndpoint,
    endpoint_id: EndpointId,
    *,
    secret: SecretMaterial,
    beside: Beside,
) -> pointer.First:
    """Seal what the new endpoint points at, and return that."""
    tenant, store = endpoint.tenant_id, operator.unlocked.store_on(operator.connection)
    name, scheme = endpoint_secret_name(endpoint_id), endpoint.scheme
    return pointer.First(
        ref=await store.put(tenant, name, secret, purpose=Purpose.WEBHOOK_SIGNING, scheme=scheme.value),
        scheme=scheme,
        algorithm=endpoint.algorithm,
        headers=await endpoint_headers.keep(
            operator.connection, store, tenant=tenant, endpoint_id=endpoint_id, headers=beside.headers
        ),
        tls=await endpoint_tls.keep(
            operator.connection, store, tenant=tenant, endpoint_id=endpoint_id, identity=beside.tls
        ),
    )


def _any_version(operator: Operator, found: Pointer) -> SecretRef:
    # Not one that the row names: the row may have been altered.
    name = endpoint_secret_name(found.endpoint_id)
    return SecretRef(provider=operator.unlocked.store.provider, tenant=found.tenant_id, name=name, version=1)


def _facts(endpoint: NewEndpoint, stored: Pointer) -> dict[str, Any]:
    return {
        "host": host(stored.url),
        "event_types": list(endpoint.event_types),
        "name": endpoint.name,
        "timeout_ms": endpoint.timeout_ms,
        "max_attempts": endpoint.max_attempts,
        "backoff_base_seconds": endpoint.backoff_base_seconds,
        "backoff_cap_seconds": endpoint.backoff_cap_seconds,
        "retry_schedule": None if endpoint.retry_schedule is None else list(endpoint.retry_schedule),
        "rotate_every_days": endpoint.rotate_every_days,
        "scheme": stored.scheme,
        "algorithm": stored.algorithm,
        "generation": stored.generation,
        "secret_ref": stored.secret_ref,
        "header_names": list(endpoint.header_names),
        "headers_ref": stored.headers_ref,
        "tls": endpoint.tls_shown,
        "tls_ref": stored.tls_ref,
    }


def _change(
    action: Action, of: Pointer, *, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None
) -> Change:
    return Change(
        tenant_id=of.tenant_id, action=action, subject=f"endpoint:{of.endpoint_id}", before=before, after=after
    )
