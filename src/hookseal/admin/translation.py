"""The arguments and results of an Admin that need more than one line to translate."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from hookseal.admin import arguments
from hookseal.admin.arguments import Text
from hookseal.admin.results.base import of_row
from hookseal.admin.results.endpoints import AddedEndpoint, EndpointStats, PeriodStats
from hookseal.admin.results.pings import Ping, PingAddress, PingAnswer, PingRequest, PingTls, SignedContent
from hookseal.dispatcher.core.model import NotBegun, Reply
from hookseal.dispatcher.core.outcome import explain
from hookseal.errors import Malformed
from hookseal.ground.unset import UNSET, Unset
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint import update
from hookseal.operations.endpoint.endpoints import AddedEndpoint as StoredEndpoint
from hookseal.operations.endpoint.probe import SignedBytes, Tested
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.extras.stored import EndpointExtras
from hookseal.secrets.extras.tls_identity import TlsChange, TlsIdentity

_HEADERS: Final = {
    Scheme.STANDARD: ("webhook-",),
    Scheme.SVIX: ("svix-",),
    Scheme.X_WEBHOOK: ("x-webhook-", "x-tenant-id"),
}
_HMAC: Final = (
    "HMAC-SHA256; its key is the text after whsec_, decoded from base64; the result in base64 follows 'v1,' in "
)
_ED25519: Final = (
    "verify as ed25519; the public key is the base64 after whpk_; the signature is the base64 after 'v1a,' in "
)
_KEY: Final = {
    (Scheme.STANDARD, Algorithm.HMAC): _HMAC + "webhook-signature",
    (Scheme.STANDARD, Algorithm.ED25519): _ED25519 + "webhook-signature",
    (Scheme.SVIX, Algorithm.HMAC): _HMAC + "svix-signature",
    (Scheme.SVIX, Algorithm.ED25519): _ED25519 + "svix-signature",
    (Scheme.X_WEBHOOK, Algorithm.HMAC): "HMAC-SHA256; its key is the whole text of the secret in UTF-8; "
    "the result in hex follows 'sha256=' in x-webhook-signature",
}


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
    change_headers: Mapping[str, str | None] | Unset,
    client_cert: Text | Unset | None,
    client_key: Text | None,
    ca: Text | Unset | None,
) -> dict[str, Any]:
    """Return the changes of an endpoint's headers and TLS identity. Raises `Malformed`."""
    changes: dict[str, Any] = {}
    if headers is not UNSET and change_headers is not UNSET:
        raise Malformed("headers replaces all headers: give it without change_headers", field="change_headers")
    if change_headers is not UNSET:
        changes[update.HEADERS] = arguments.header_change(change_headers)
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
    """Return the ping, how it reached the receiver, and its answer."""
    request, way, answer = tested.request, tested.way, tested.answer
    return Ping(
        tenant_id=tested.pointer.tenant_id,
        endpoint_id=tested.pointer.endpoint_id,
        enabled=tested.enabled,
        url=request.url,
        addresses=tuple(
            PingAddress(address=each.address, allowed=each.refusal is None, reason=each.refusal)
            for each in way.addresses
        ),
        addresses_error=way.error,
        dialled=way.dialled,
        tls=None if way.tls is None else of_row(PingTls, asdict(way.tls)),
        request=PingRequest(headers=request.headers, own_headers=tested.own_headers, body=request.body.decode("utf-8")),
        signed=tuple(_signed(each, request.headers) for each in tested.signed),
        answer=PingAnswer(
            outcome=None if tested.outcome is None else tested.outcome.value,
            status=answer.status if isinstance(answer, Reply) else None,
            duration_ms=round(tested.seconds * 1000),
            snippet=answer.snippet if isinstance(answer, Reply) else None,
            detail=_not_begun(answer) if isinstance(answer, NotBegun) else explain(answer),
        ),
    )


def _not_begun(answer: NotBegun) -> str:
    if answer.missing_resource is None:
        return "the request could not begin in time: try again"
    return f"this machine had no free socket ({answer.missing_resource}): close some files"


def _signed(signed: SignedBytes, headers: Mapping[str, str]) -> SignedContent:
    return SignedContent(
        secret_ref=signed.secret_ref,
        scheme=signed.scheme.value,
        algorithm=Algorithm(signed.algorithm).value,
        content=signed.content.decode("utf-8"),
        content_base64=base64.b64encode(signed.content).decode("ascii"),
        headers={name: value for name, value in headers.items() if name.startswith(_HEADERS[signed.scheme])},
        receiver_computes=_KEY[signed.scheme, Algorithm(signed.algorithm)],
    )
