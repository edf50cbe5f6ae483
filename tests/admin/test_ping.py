"""A ping to real receivers: its result has the connection, the signed bytes and the answer."""

import asyncio
import base64
import hashlib
import hmac
import socket
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from hookseal import Admin
from hookseal.admin import Ping
from hookseal.admin import session as sessions
from hookseal.admin.results.pings import PingAddress
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import ContextMismatch, NotFound, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras.tls_identity import NONE, TlsIdentity
from tests import rows
from tests.cli.listeners import closed_port
from tests.doubles.client_certificates import AlertingTlsServer, Authority, identity, serving
from tests.doubles.logbook import audited
from tests.doubles.receivers import hang, listening, status
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-12")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client("hookseal of acme")
TOKEN = b"canary-of-a-header-4f1d"
TEXT = SecretMaterial(b"canary of an x-webhook secret, 4f1d")
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name LIKE 'webhook-endpoint-%'"
)


async def added(installation: Installation, url: str, tls: TlsIdentity = NONE, **how: Any) -> AddedEndpoint:
    """Add an endpoint for that url with a header of its own."""
    secret = how.pop("secret", None)
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), settings={"timeout_ms": 15_000}, **how)
    return await installation.add(new, secret, headers={"x-token": TOKEN}, tls=tls)


async def ping(admin: Admin, to: AddedEndpoint) -> Ping:
    """Send a ping to it."""
    return await admin.endpoints.test(tenant_id="acme", endpoint_id=to.pointer.endpoint_id, actor="jane")


async def test_a_ping_shows_connection_bytes_and_answer(admin: Admin, installation: Installation) -> None:
    """The result has the connection, the exact signed bytes and the answer; the request verifies; it is audited."""
    async with listening(status(204)) as listener:
        endpoint = await added(installation, listener.url)
        shown = await ping(admin, endpoint)
    [raw] = listener.requests
    head, _, body = raw.partition(b"\r\n\r\n")

    assert (PingAddress(address="127.0.0.1", allowed=True, reason=None),) == shown.addresses
    assert (f"127.0.0.1:{listener.port}", None, True) == (shown.dialled, shown.tls, shown.delivered)
    assert (body.decode(), ("x-token",)) == (shown.request.body, shown.request.own_headers)
    for name, value in shown.request.headers.items():
        assert f"{name}: {value}".lower().encode() in head.lower()
    Webhook(endpoint.secret.reveal().decode()).verify(body, dict(shown.request.headers))
    [signed] = shown.signed
    assert (endpoint.pointer.secret_ref, "standard", "hmac") == (signed.secret_ref, signed.scheme, signed.algorithm)
    content = base64.b64decode(signed.content_base64)
    assert content.decode() == signed.content
    key = base64.b64decode(endpoint.secret.reveal().removeprefix(b"whsec_"))
    computed = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    assert computed == signed.headers["webhook-signature"]
    assert ("delivered", 204, None) == (shown.answer.outcome, shown.answer.status, shown.answer.detail)
    *_, entry = await audited(installation.pool)
    assert ("endpoint.tested", {"signed_by": [endpoint.pointer.secret_ref], "outcome": "delivered", "status": 204}) == (
        entry["action"],
        entry["after"],
    )


@pytest.mark.parametrize(
    ("scheme", "algorithm"),
    [
        (Scheme.X_WEBHOOK, Algorithm.HMAC),
        (Scheme.STANDARD, Algorithm.ED25519),
        (Scheme.SVIX, Algorithm.HMAC),
        (Scheme.SVIX, Algorithm.ED25519),
    ],
)
async def test_other_schemes_show_what_a_receiver_verifies(
    admin: Admin, installation: Installation, scheme: Scheme, algorithm: Algorithm
) -> None:
    """In the other scheme and algorithm, too, the shown content is what a receiver verifies."""
    secret = TEXT if scheme is Scheme.X_WEBHOOK else None
    async with listening(status(200, b"thank you")) as listener:
        endpoint = await added(installation, listener.url, scheme=scheme, algorithm=algorithm, secret=secret)
        shown = await ping(admin, endpoint)
    [signed] = shown.signed
    assert (scheme.value, algorithm.value, "thank you") == (signed.scheme, signed.algorithm, shown.answer.snippet)
    if scheme is Scheme.X_WEBHOOK:
        made = hmac.new(TEXT.reveal(), signed.content.encode(), hashlib.sha256).hexdigest()
        assert f"sha256={made}" == signed.headers["x-webhook-signature"]
        assert "x-tenant-id" in signed.headers
    else:
        prefix, version, key = (
            "webhook" if scheme is Scheme.STANDARD else "svix",
            *(("v1,", "whsec_") if algorithm is Algorithm.HMAC else ("v1a,", "whpk_")),
        )
        assert {f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature"} == signed.headers.keys()
        assert signed.headers[f"{prefix}-signature"].startswith(version)
        assert key in signed.receiver_computes
        assert f"{prefix}-signature" in signed.receiver_computes


async def test_a_ping_over_tls_shows_the_certificate(admin: Admin, installation: Installation, tmp_path: Path) -> None:
    """The result has version, cipher and certificate, and the client certificate was presented."""
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        shown = await ping(admin, await added(installation, listener.url, identity(CLIENT, AUTHORITY)))
    assert shown.tls is not None
    assert ["hookseal of acme"] == listener.shown
    assert ("TLSv1.3", "commonName=localhost", "commonName=authority") == (
        *(shown.tls.version, shown.tls.subject, shown.tls.issuer),
    )
    assert (shown.tls.cipher or "").startswith("TLS_")
    assert shown.tls.expires_at is not None


async def test_an_untrusted_certificate_gets_no_request(
    admin: Admin, installation: Installation, tmp_path: Path
) -> None:
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path)) as listener:
        shown = await ping(admin, await added(installation, listener.url))
    assert (False, None, None, "tls") == (shown.delivered, shown.dialled, shown.tls, shown.answer.outcome)
    assert "authority that is not trusted" in (shown.answer.detail or "")


async def test_a_forbidden_address_has_its_reason(installation: Installation, environ: dict[str, str]) -> None:
    """If this machine is not allowed, each address has the reason why it is not dialled."""
    endpoint = await added(installation, "http://localhost:9/hook")
    async with Admin.connect(environ=environ | {"HOOKSEAL_EGRESS_ALLOW": ""}) as admin:
        shown = await ping(admin, endpoint)
    assert {"127.0.0.1"} <= {each.address for each in shown.addresses}
    assert {(False, "loopback, RFC 1122")} == {(each.allowed, each.reason) for each in shown.addresses}
    assert (False, "forbidden_address", None) == (shown.delivered, shown.answer.outcome, shown.dialled)


async def test_each_failure_is_reported(
    admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other status, a closed port and an unresolvable name are reported as such."""
    async with listening(status(500, b"no")) as listener:
        answer = (await ping(admin, await added(installation, listener.url))).answer
    assert ("server_error", 500, "the receiver answered 500", "no") == (
        *(answer.outcome, answer.status, answer.detail, answer.snippet),
    )
    nobody = await added(installation, f"http://127.0.0.1:{closed_port()}/")
    assert "connection" == (await ping(admin, nobody)).answer.outcome
    endpoint = await added(installation, "https://nowhere.invalid/")
    look_up = socket.getaddrinfo

    def answered(host: Any, *args: Any, **options: Any) -> Any:  # at once, whatever name servers this machine has
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    nowhere = await ping(admin, endpoint)
    assert ((), "dns", False) == (nowhere.addresses, nowhere.answer.outcome, nowhere.delivered)
    assert "resolved" in (nowhere.addresses_error or "")


async def test_a_disabled_endpoint_is_pinged_and_an_altered_one_is_not(
    admin: Admin, installation: Installation
) -> None:
    """A disabled endpoint gets a ping; with an altered secret nothing is sent; another tenant's is not found."""
    async with listening(status(204)) as listener:
        endpoint = await added(installation, listener.url)
        await rows.change(installation.pool, "endpoints", enabled=False)
        found = await ping(admin, endpoint)
        assert (True, False) == (found.delivered, found.enabled)
        await installation.pool.execute(FLIP_A_BIT)
        with pytest.raises(ContextMismatch):
            await ping(admin, endpoint)
        assert 1 == len(listener.requests)
    with pytest.raises(NotFound):
        await admin.endpoints.test(tenant_id="globex", endpoint_id=endpoint.pointer.endpoint_id, actor="jane")


async def test_receivers_of_one_tenant_that_hang_leave_pings_for_others(
    admin: Admin, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its pings are under way, a further one is refused after a while, and nothing is sent for it."""
    monkeypatch.setattr(sessions, "_PING_WAIT_SECONDS", 0.5)
    async with listening(hang) as hanging, listening(status(204)) as listener:
        endpoint = await added(installation, hanging.url)
        theirs = await admin.endpoints.add(tenant_id="globex", url=listener.url, event_types=["*"], actor="jane")
        under_way = [asyncio.create_task(ping(admin, endpoint)) for _ in range(2)]
        try:
            await eventually(lambda: len(hanging.requests) == 2)
            with pytest.raises(Unavailable, match="too many pings at once: nothing was done"):
                await ping(admin, endpoint)
            shown = await admin.endpoints.test(tenant_id="globex", endpoint_id=theirs.endpoint_id, actor="jane")
            assert (True, 2) == (shown.delivered, len(hanging.requests))
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)
