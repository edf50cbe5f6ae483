"""The arguments and results of an Admin that need more than one line to translate."""

from collections.abc import Mapping
from typing import Any

from hookseal.admin import arguments
from hookseal.admin.arguments import UNSET, Text, Unset
from hookseal.admin.results import AddedEndpoint, EndpointStats, PeriodStats, Ping, of_row
from hookseal.dispatcher.core.model import NotBegun, Outcome, Reply
from hookseal.dispatcher.core.outcome import explain
from hookseal.operations.endpoint import update
from hookseal.operations.endpoint.endpoints import AddedEndpoint as StoredEndpoint
from hookseal.operations.endpoint.probe import Tested
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.extras.stored import EndpointExtras
from hookseal.secrets.extras.tls_identity import TlsChange, TlsIdentity


def extras(
    headers: Mapping[str, str] | None, client_cert: Text | None, client_key: Text | None, ca: Text | None
) -> EndpointExtras:
    """Return the headers and the TLS identity of a new endpoint. Raises `Malformed`."""
    client, trusted = arguments.client_certificate(client_cert, client_key), arguments.authorities(ca)
    return EndpointExtras(
        headers=arguments.headers({} if headers is None else headers),
        tls=TlsIdentity(client=client, authorities=trusted),
    )


def added(endpoint: StoredEndpoint) -> AddedEndpoint:
    """Return the new endpoint with what its receiver needs."""
    return AddedEndpoint(
        tenant_id=endpoint.pointer.tenant_id,
        endpoint_id=endpoint.pointer.endpoint_id,
        secret_ref=endpoint.pointer.secret_ref or "",
        generation=endpoint.pointer.generation,
        secret=endpoint.secret if endpoint.public_key is None else None,
        public_key=endpoint.public_key,
    )


def stats(item: Mapping[str, Any]) -> EndpointStats:
    """Return the statistics of an endpoint."""
    hour, day = of_row(PeriodStats, item["last_hour"]), of_row(PeriodStats, item["last_day"])
    return of_row(EndpointStats, item, last_hour=hour, last_day=day)


def extras_changes(
    headers: Mapping[str, str] | Unset,
    client_cert: Text | Unset | None,
    client_key: Text | None,
    ca: Text | Unset | None,
) -> dict[str, Any]:
    """Return the changes of an endpoint's headers and TLS identity. Raises `Malformed`."""
    changes: dict[str, Any] = {}
    if headers is not UNSET:
        changes[update.HEADERS] = HeaderChange(given=arguments.headers(headers), replaces_all=True)
    if client_cert is not UNSET or client_key is not None or ca is not UNSET:
        client = arguments.client_certificate(None if client_cert is UNSET else client_cert, client_key)
        changes[update.TLS] = TlsChange(
            client=client,
            authorities=() if ca is UNSET else arguments.authorities(ca),
            without_client=client_cert is None,
            without_authorities=ca is None,
        )
    return changes


def ping(tested: Tested) -> Ping:
    """Return the ping and its answer."""
    answer = tested.answer
    return Ping(
        tenant_id=tested.pointer.tenant_id,
        endpoint_id=tested.pointer.endpoint_id,
        enabled=tested.enabled,
        url=tested.request.url,
        delivered=tested.outcome is Outcome.DELIVERED,
        outcome=None if tested.outcome is None else tested.outcome.value,
        status=answer.status if isinstance(answer, Reply) else None,
        detail="the request could not begin in time" if isinstance(answer, NotBegun) else explain(answer),
        duration_ms=round(tested.seconds * 1000),
        snippet=answer.snippet if isinstance(answer, Reply) else None,
        dialled=tested.way.dialled,
        signed_by=tuple(each.secret_ref for each in tested.signed),
    )
