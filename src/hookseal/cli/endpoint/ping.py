"""`hookseal endpoint test`: send one signed ping, and show every step of it."""

import base64
from typing import Any, Final

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit, printable, rfc3339
from hookseal.cli.shared.runtime import start
from hookseal.config.settings import Settings
from hookseal.dispatcher.core.model import NotBegun, Outcome, Reply
from hookseal.dispatcher.core.outcome import explain
from hookseal.dispatcher.http.observation import Observed
from hookseal.ground import ids
from hookseal.ground.clock import SystemClock
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import sending
from hookseal.operations.endpoint import probe
from hookseal.operations.endpoint.probe import SignedBytes, Tested
from hookseal.operations.operator import Operator

_SIGNATURES: Final = ("webhook-", "x-webhook-", "x-tenant-id")
_NOT_BEGUN: Final = "the request could not begin in time: try again"
_KEY: Final = {
    (Scheme.STANDARD, Algorithm.HMAC): "HMAC-SHA256; its key is the text after whsec_, decoded from base64; "
    "the result in base64 follows 'v1,' in webhook-signature",
    (Scheme.STANDARD, Algorithm.ED25519): "verify as ed25519; the public key is the base64 after whpk_; the signature "
    "is the base64 after 'v1a,' in webhook-signature",
    (Scheme.X_WEBHOOK, Algorithm.HMAC): "HMAC-SHA256; its key is the whole text of the secret in UTF-8; "
    "the result in hex follows 'sha256=' in x-webhook-signature",
}


def send_ping(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Send one signed ping; show addresses, TLS, the signed bytes and the answer: exit 0 if it is 2xx, else 1.

    The ping is sent as a delivery is: with these settings, signed with every secret that is due. A disabled endpoint
    is tested, too. Of the headers that the endpoint adds, only the names are shown.

    Example: hookseal endpoint test --tenant acme --endpoint ID
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    settings = start(NEEDS)
    tested = operate(settings, lambda operator: _test(settings, operator, owner, wanted))
    shown = _shape(tested)
    emit(shown, as_json=as_json, text=lambda: _text(shown))
    raise typer.Exit(0 if tested.outcome is Outcome.DELIVERED else 1)


async def _test(settings: Settings, operator: Operator, tenant: ids.TenantId, wanted: ids.EndpointId) -> Tested:
    clock = SystemClock()
    async with sending.transport(settings.egress, clock) as opened:
        how = sending.as_worker(opened, settings.egress, clock)
        return await probe.send_ping(operator, how, tenant=tenant, endpoint_id=wanted)


def _shape(tested: Tested) -> dict[str, Any]:
    request, answer = tested.request, tested.answer
    return {
        "tenant_id": tested.pointer.tenant_id,
        "endpoint_id": tested.pointer.endpoint_id,
        "enabled": tested.enabled,
        "url": request.url,
        **_route(tested.way),
        "request": {
            "headers": request.headers,
            "own_headers": list(tested.own_headers),
            "body": request.body.decode("utf-8"),
        },
        "signed": [_signed(each, request.headers) for each in tested.signed],
        "answer": {
            "outcome": None if tested.outcome is None else tested.outcome.value,
            "status": answer.status if isinstance(answer, Reply) else None,
            "duration_ms": round(tested.seconds * 1000),
            "snippet": answer.snippet if isinstance(answer, Reply) else None,
            "detail": _not_begun(answer) if isinstance(answer, NotBegun) else explain(answer),
        },
    }


def _not_begun(answer: NotBegun) -> str:
    return (
        _NOT_BEGUN
        if answer.missing_resource is None
        else f"this machine had no free socket ({answer.missing_resource}): close some files"
    )


def _route(route: Observed) -> dict[str, Any]:
    tls = route.tls
    return {
        "addresses": [
            {"address": each.address, "allowed": each.refusal is None, "reason": each.refusal}
            for each in route.addresses
        ],
        "addresses_error": route.error,
        "dialled": route.dialled,
        "tls": None
        if tls is None
        else {
            "version": tls.version,
            "cipher": tls.cipher,
            "subject": tls.subject,
            "issuer": tls.issuer,
            "expires_at": tls.expires_at,
        },
    }


def _signed(signed: SignedBytes, headers: dict[str, str]) -> dict[str, Any]:
    of_scheme = _SIGNATURES[:1] if signed.scheme is Scheme.STANDARD else _SIGNATURES[1:]
    return {
        "secret_ref": signed.secret_ref,
        "scheme": signed.scheme.value,
        "algorithm": signed.algorithm,
        "content": signed.content.decode("utf-8"),
        "content_base64": base64.b64encode(signed.content).decode("ascii"),
        "headers": {name: value for name, value in headers.items() if name.startswith(of_scheme)},
        "receiver_computes": _KEY[signed.scheme, Algorithm(signed.algorithm)],
    }


def _text(shown: dict[str, Any]) -> str:
    answer, tls = shown["answer"], shown["tls"]
    lines = [
        f"endpoint   {shown['endpoint_id']}{'' if shown['enabled'] else ' (disabled)'}",
        f"url        {shown['url']}",
    ]
    lines += [f"address    {each['address']}  {each['reason'] or 'allowed'}" for each in shown["addresses"]]
    lines += [] if shown["addresses_error"] is None else [f"address    {shown['addresses_error']}"]
    lines.append(f"connected  {shown['dialled'] or 'to none: no request was sent'}")
    if tls is not None:
        until = "-" if tls["expires_at"] is None else rfc3339(tls["expires_at"])
        lines.append(f"tls        {tls['version']}  {tls['cipher']}")
        lines.append(f"           {printable(tls['subject'])}; from {printable(tls['issuer'])}; until {until}")
    lines += [f"header     {name}: {printable(value)}" for name, value in shown["request"]["headers"].items()]
    lines += [f"header     {name}: (sealed)" for name in shown["request"]["own_headers"]]
    for each in shown["signed"]:
        lines += [
            f"signed     by {each['secret_ref']} ({each['scheme']}, {each['algorithm']})",
            f"           {printable(each['content'])}",
            f"receiver   {each['receiver_computes']}",
        ]
    took = f"{answer['duration_ms']} ms"
    status = answer["detail"] if answer["status"] is None else f"{answer['status']} ({answer['outcome']})"
    lines.append(f"answer     {status}, {took}")
    lines += [f"           {printable(answer['snippet'])}"] if answer["snippet"] else []
    lines.append(
        "to check   hookseal verify --secret-file F --headers-file H --body-file B, with headers and body as received"
    )
    return "\n".join(lines)
