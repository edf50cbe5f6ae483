"""Adds, enables, disables and deletes an endpoint, each in one transaction with its audit row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from hookseal.audit.chain import Action
from hookseal.dispatcher.core import endpoint_rules, endpoint_settings
from hookseal.dispatcher.store import endpoint_health, endpoints
from hookseal.dispatcher.store import held as held_deliveries
from hookseal.dispatcher.store.endpoint_health import Failing
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Malformed, Refused, SecretUnusable
from hookseal.ground.ids import OPERATOR_TENANT, DeliveryId, EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of, require_signing_secret
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored as extras_stored
from hookseal.secrets.extras import tls_context, tls_identity
from hookseal.secrets.extras.stored import NO_EXTRAS, EndpointExtras, Extra
from hookseal.secrets.extras.tls_identity import TlsIdentity
from hookseal.secrets.store import records

T = TypeVar("T")

# Shorter than the time after which PostgreSQL looks for a deadlock (`deadlock_timeout`, 1 s).
_BRIEFLY: Final = "SET LOCAL lock_timeout = '700ms'"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """The stored endpoint. The secret is shown only now; for ed25519 the receiver needs the `public_key`."""

    pointer: Pointer
    secret: SecretMaterial
    public_key: str | None


async def add_endpoint(
    operator: Operator,
    endpoint: NewEndpoint,
    secret: SecretMaterial | None,
    *,
    own_drain_seconds: int,
    own: EndpointExtras = NO_EXTRAS,
    is_older: bool = False,
) -> AddedEndpoint:
    """Store the endpoint with this signing secret, or a new one, and its `own` extras, sealed; all of it or nothing.

    A secret of an older system (`is_older`) may be shorter than others. Raises `Conflict` if the tenant has an endpoint
    with this url or uid, or if the given id was used before, `Refused` for a time-out longer than the drain of a
    worker, and for an ordered endpoint of the operator, `Malformed` for a secret that cannot sign, a header that must
    not be sent or a certificate that is not valid now, and `Unavailable`.
    """
    overlap.require_signable(endpoint.scheme, endpoint.algorithm)
    if endpoint.ordered and endpoint.tenant_id == OPERATOR_TENANT:
        raise Refused("an endpoint of _operator cannot be ordered: workers must not wait for it", field="ordered")
    material = generate_signing_secret(endpoint.algorithm) if secret is None else secret
    require_signing_secret(material, endpoint.scheme, endpoint.algorithm, is_older=is_older)
    named = replace(
        endpoint, header_names=extras_stored.HEADERS.shown(own.headers), tls_shown=extras_stored.TLS.shown(own.tls)
    )
    async with operator.changing() as connection:
        timeout_ms = endpoint_settings.complete(endpoint.settings)["timeout_ms"]
        await require_drainable(operator, timeout_ms, own_drain_seconds=own_drain_seconds)
        endpoint_id = await endpoints.insert(connection, named)
        await require_usable(operator, own.tls)
        first = await _sealed(operator, named, endpoint_id, secret=material, own=own)
        stored = await pointer.set_initial(
            connection, operator.unlocked.integrity, tenant=endpoint.tenant_id, endpoint_id=endpoint_id, to=first
        )
        after = _facts(named, stored) | {"key_id": await operator.unlocked.sealing_key_id(connection)}
        await operator.audit(Action.ENDPOINT_ADDED, of=stored, after=after)
    public_key = public_key_of(material) if endpoint.algorithm is Algorithm.ED25519 else None
    return AddedEndpoint(pointer=stored, secret=material, public_key=public_key)


async def delete_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Delete the endpoint, cancel its pending deliveries, retire its secrets; return the number of cancelled ones.

    Its url is free again, and its history stays. Deliveries in flight may still be recorded. A row whose MAC does not
    match is deleted, too. Raises `NotFound` and `Unavailable`.
    """
    async with operator.changing() as connection:
        row = await pointer.lock(connection, tenant=tenant, endpoint_id=endpoint_id)
        decided = await endpoints.locked(connection, tenant, endpoint_id)
        await endpoints.delete(connection, tenant, endpoint_id)
        cancelled = await held_deliveries.cancel(connection, tenant, endpoint_id)
        await records.retire(connection, _any_version(operator, row))
        for extra in extras_stored.ALL:
            await extras_stored.retire(
                connection, operator.unlocked.store, extra, tenant=tenant, endpoint_id=endpoint_id
            )
        before = {
            "host": host(row.url),
            "generation": row.generation,
            "secret_ref": row.secret_ref,
            "previous_secret_ref": row.previous_secret_ref,
            "headers_ref": row.headers_ref,
            "tls_ref": row.tls_ref,
            "enabled": decided["enabled"],
        }
        # A higher generation than any before: if somebody restores the row, it is stale.
        generation = pointer.generation_after(row.generation, row.audited_generation)
        after = {"cancelled_deliveries": cancelled, "generation": generation}
        await operator.audit(Action.ENDPOINT_DELETED, of=row, before=before, after=after)
    return cancelled


async def require_drainable(operator: Operator, timeout_ms: int, *, own_drain_seconds: int) -> None:
    """Raise `Refused` unless every live worker can finish a request of `timeout_ms` within its drain.

    Without a live worker the drain is `own_drain_seconds`. Raises `Unavailable`.
    """
    smallest = await endpoints.smallest_drain_seconds(operator.connection)
    endpoint_rules.require_drainable(timeout_ms, own_drain_seconds if smallest is None else smallest)


async def require_usable(operator: Operator, tls: TlsIdentity) -> None:
    """Raise `Malformed` unless OpenSSL accepts every certificate and each is valid now, by the database's clock.

    Raises `Unavailable`.
    """
    if tls.is_empty:
        return
    tls_identity.require_current(tls, await pointer.time_after(operator.connection, 0.0))
    try:
        tls_context.context_of(tls)
    except SecretUnusable as error:
        raise Malformed(str(error), field="client_cert" if tls.client else "ca") from None


def host(url: str) -> str | None:
    """Return the host of a url. The audit log stores nothing else of it, because the rest may contain secrets."""
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
    own: EndpointExtras,
) -> pointer.InitialSecrets:
    """Seal the secrets of the new endpoint, and return their refs."""
    tenant, store = endpoint.tenant_id, operator.unlocked.store_on(operator.connection)
    name, scheme = endpoint_secret_name(endpoint_id), endpoint.scheme

    async def keep(extra: Extra[T], value: T) -> SecretRef | None:
        if value == extra.none:  # nor has the endpoint an older one, since it is new
            return None
        connection = operator.connection
        return await extras_stored.keep(connection, store, extra, value, tenant=tenant, endpoint_id=endpoint_id)

    return pointer.InitialSecrets(
        ref=await store.put(tenant, name, secret, purpose=Purpose.WEBHOOK_SIGNING, scheme=scheme.value),
        scheme=scheme,
        algorithm=endpoint.algorithm,
        headers=await keep(extras_stored.HEADERS, own.headers),
        tls=await keep(extras_stored.TLS, own.tls),
    )


def _any_version(operator: Operator, row: Pointer) -> SecretRef:
    # It does not use the ref of the row, because the row may have been altered.
    name = endpoint_secret_name(row.endpoint_id)
    return SecretRef(provider=operator.unlocked.store.provider, tenant=row.tenant_id, name=name, version=1)


def given_facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for an audit row: of metadata the keys, and of a description only whether there is one.

    Rows of the audit log are never removed, so they have nothing of a text that may be about a person.
    """
    facts = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    if "metadata" in facts:
        facts["metadata_keys"] = sorted(facts.pop("metadata"))
    if "description" in facts:
        facts["has_description"] = facts.pop("description") != ""
    return facts


def _facts(endpoint: NewEndpoint, stored: Pointer) -> dict[str, Any]:
    return {
        "host": host(stored.url),
        "event_types": list(endpoint.event_types),
        **given_facts(endpoint_settings.complete(endpoint.settings)),
        "scheme": stored.scheme,
        "algorithm": stored.algorithm,
        "generation": stored.generation,
        "secret_ref": stored.secret_ref,
        "header_names": list(endpoint.header_names),
        "headers_ref": stored.headers_ref,
        "tls": endpoint.tls_shown,
        "tls_ref": stored.tls_ref,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Enabled:
    """An enabled endpoint. `changed`: it was disabled before. `woken`: how many held deliveries are released.

    `in_line`: how many more wait in the line of an ordered endpoint, behind `line_head`. `probed`: it was enabled, and
    its deliveries are held; the oldest of them is tried now.
    """

    changed: bool
    woken: int
    probed: bool
    in_line: int = 0
    line_head: DeliveryId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """A disabled endpoint, and the reason. `changed`: it was enabled before."""

    changed: bool
    reason: str | None


async def enable_endpoint(
    operator: Operator, tenant: TenantId, endpoint_id: EndpointId, *, own_drain_seconds: int
) -> Enabled:
    """Enable the endpoint. The leader then releases the deliveries that waited for it, oldest first.

    An enabled endpoint is not changed; if it is held, its next probe is due now, and that is audited. Raises
    `NotFound`, `Refused` if a live worker could not finish its requests within its drain, and `Unavailable`.
    """
    async with operator.changing() as connection:
        settings = await endpoints.locked(connection, tenant, endpoint_id)
        if settings["enabled"]:
            held_for = await held_deliveries.probe(connection, tenant, endpoint_id)
            if held_for is not None:
                await operator.audit(
                    Action.ENDPOINT_PROBE_REQUESTED,
                    of=f"endpoint:{endpoint_id}",
                    tenant=tenant,
                    after={"held_for": held_for.value},
                )
            return Enabled(changed=False, woken=0, probed=held_for is not None)
        await require_drainable(operator, settings["timeout_ms"], own_drain_seconds=own_drain_seconds)
        await endpoints.enable(connection, tenant, endpoint_id)
        await held_deliveries.release(connection, tenant, endpoint_id)
        held = await held_deliveries.count(connection, tenant, endpoint_id)
        await operator.audit(
            Action.ENDPOINT_ENABLED,
            of=f"endpoint:{endpoint_id}",
            tenant=tenant,
            before={"enabled": False, "disabled_reason": settings["disabled_reason"]},
            after={"enabled": True, "disabled_reason": None},
        )
    return Enabled(changed=True, woken=held.due, in_line=held.in_line, line_head=held.head, probed=False)


async def disable_endpoint(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, *, reason: str) -> Disabled:
    """Disable the endpoint from the next claim on. Its pending and newly published deliveries are held.

    A disabled endpoint is not changed and keeps its reason. Raises `NotFound` and `Unavailable`.
    """
    async with operator.changing() as connection:
        settings = await endpoints.locked(connection, tenant, endpoint_id)
        if not settings["enabled"]:
            return Disabled(changed=False, reason=settings["disabled_reason"])
        await endpoints.disable(connection, tenant, endpoint_id, reason)
        await held_deliveries.release(connection, tenant, endpoint_id)  # what was held now waits for `enable`
        await _audit_disabled(operator, tenant, endpoint_id, reason)
    return Disabled(changed=True, reason=reason)


async def set_enabled(
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    *,
    disabled_reason: str | None,
    own_drain_seconds: int,
) -> bool:
    """Disable the endpoint for this reason, or enable it without one; return whether it was not so before.

    One that is so already is not touched: nothing is probed. Raises as `enable_endpoint` does.
    """
    async with operator.changing() as connection:
        settings = await endpoints.locked(connection, tenant, endpoint_id)
        if settings["enabled"] == (disabled_reason is None):
            return False
        if disabled_reason is None:
            await enable_endpoint(operator, tenant, endpoint_id, own_drain_seconds=own_drain_seconds)
        else:
            await disable_endpoint(operator, tenant, endpoint_id, reason=disabled_reason)
    return True


async def disable_failing_endpoint(operator: Operator, failing: Failing, *, after_seconds: int) -> str | None:
    """Disable the endpoint if it has only failed for that long; return the reason, None if it stays enabled.

    Raises `Unavailable`, and `Refused` if the audit log of its tenant takes no row: it then stays enabled.
    """
    async with operator.changing() as connection:
        reason = await endpoint_health.disable_failing(connection, failing, after_seconds=after_seconds)
        if reason is not None:
            await _audit_disabled(operator, failing.tenant_id, failing.endpoint_id, reason)
    return reason


async def audit_gone(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
    """Audit that the receiver answered 410 and the endpoint was disabled, in the open transaction of the record.

    It waits only briefly for another change of the tenant, as the record of an outcome must not wait for it. Raises
    `Unavailable`, `SecretError`, and `Refused` if the audit log takes no row.
    """
    async with operator.changing() as connection:
        await connection.execute(_BRIEFLY)
        await _audit_disabled(operator, tenant, endpoint_id, reason)


async def _audit_disabled(operator: Operator, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
    # No generation: the pointer did not move, and its MAC was not verified.
    await operator.audit(
        Action.ENDPOINT_DISABLED,
        of=f"endpoint:{endpoint_id}",
        tenant=tenant,
        before={"enabled": True, "disabled_reason": None},
        after={"enabled": False, "disabled_reason": reason},
    )
