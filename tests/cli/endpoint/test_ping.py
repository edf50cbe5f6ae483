"""`hookseal endpoint test` against real receivers: it shows the connection, the signed bytes and the answer."""

import base64
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras.tls_identity import TlsIdentity
from tests.cli.command import Ended
from tests.cli.endpoint.test_canary import SENT
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port
from tests.doubles.client_certificates import AlertingTlsServer, Authority, identity, serving
from tests.doubles.logbook import audited
from tests.doubles.receivers import listening, status
from tests.worker.canary import Canary, client_key, search, signing

pytestmark = pytest.mark.req("OPS-12", part="endpoint-test")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client("hookseal of acme")
TOKEN = b"canary-of-a-header-4f1d"
TEXT = SecretMaterial(b"canary of an x-webhook secret, 4f1d")
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name LIKE 'webhook-endpoint-%'"
)


@pytest.fixture
async def sending(begun: Begun) -> Begun:
    """Return an installation with settings that allow requests to this machine."""
    return replace(begun, settings=begun.settings | SENT)


async def added(begun: Begun, url: str, tls: TlsIdentity = TlsIdentity(), **how: Any) -> AddedEndpoint:  # noqa: B008
    """Add an endpoint for that url with a header of its own."""
    secret = how.pop("secret", None)
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), timeout_ms=15_000, **how)
    return await begun.stored.add(new, secret, headers={"x-token": TOKEN}, tls=tls)


async def asked(begun: Begun, endpoint: EndpointId | str, *more: str) -> Ended:
    """Run `endpoint test` for it."""
    return await begun.run("endpoint", "test", "--tenant", "acme", "--endpoint", endpoint, *(more or ("--json",)))


async def test_a_ping_shows_connection_bytes_and_answer(sending: Begun) -> None:
    """A ping shows the connection, the exact signed bytes and the answer; its request verifies; it is audited."""
    async with listening(status(204)) as listener:
        endpoint = await added(sending, listener.url)
        ended = await asked(sending, endpoint.pointer.endpoint_id)
    shown, [raw] = ended.json, listener.requests
    head, _, body = raw.partition(b"\r\n\r\n")

    assert (0, "") == (ended.code, ended.err)
    assert [{"address": "127.0.0.1", "allowed": True, "reason": None}] == shown["addresses"]
    assert (f"127.0.0.1:{listener.port}", None) == (shown["dialled"], shown["tls"])
    assert (body.decode(), ["x-token"]) == (shown["request"]["body"], shown["request"]["own_headers"])
    for name, value in shown["request"]["headers"].items():
        assert f"{name}: {value}".lower().encode() in head.lower()
    Webhook(endpoint.secret.reveal().decode()).verify(body, shown["request"]["headers"])
    [signed] = shown["signed"]
    assert (endpoint.pointer.secret_ref, "standard", "hmac") == tuple(
        signed[name] for name in ("secret_ref", "scheme", "algorithm")
    )
    content = base64.b64decode(signed["content_base64"])
    assert content.decode() == signed["content"]
    key = base64.b64decode(endpoint.secret.reveal().removeprefix(b"whsec_"))
    computed = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    assert computed == signed["headers"]["webhook-signature"]
    assert ("delivered", 204, None) == tuple(shown["answer"][name] for name in ("outcome", "status", "detail"))
    *_, entry = await audited(sending.stored.pool)
    assert ("endpoint.tested", {"signed_by": [endpoint.pointer.secret_ref], "outcome": "delivered", "status": 204}) == (
        entry["action"],
        entry["after"],
    )


@pytest.mark.parametrize(
    ("scheme", "algorithm"), [(Scheme.X_WEBHOOK, Algorithm.HMAC), (Scheme.STANDARD, Algorithm.ED25519)]
)
async def test_other_schemes_show_what_a_receiver_verifies(
    sending: Begun, scheme: Scheme, algorithm: Algorithm
) -> None:
    """In the other scheme and algorithm, too, the shown content is what a receiver verifies."""
    secret = TEXT if scheme is Scheme.X_WEBHOOK else None
    async with listening(status(200, b"thank you")) as listener:
        endpoint = await added(sending, listener.url, scheme=scheme, algorithm=algorithm, secret=secret)
        shown = (await asked(sending, endpoint.pointer.endpoint_id)).json
    [signed] = shown["signed"]
    assert (scheme.value, algorithm.value, "thank you") == (
        signed["scheme"], signed["algorithm"], shown["answer"]["snippet"]
    )  # fmt: skip
    if scheme is Scheme.X_WEBHOOK:
        made = hmac.new(TEXT.reveal(), signed["content"].encode(), hashlib.sha256).hexdigest()
        assert f"sha256={made}" == signed["headers"]["x-webhook-signature"]
        assert "x-tenant-id" in signed["headers"]
    else:
        assert signed["headers"]["webhook-signature"].startswith("v1a,")
        assert "whpk_" in signed["receiver_computes"]


async def test_a_ping_over_tls_shows_the_certificate(sending: Begun, tmp_path: Path) -> None:
    """For a TLS receiver it shows version, cipher and certificate, and it presents the client certificate."""
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        endpoint = await added(sending, listener.url, identity(CLIENT, AUTHORITY))
        ended = await asked(sending, endpoint.pointer.endpoint_id)
    tls = ended.json["tls"]
    assert (0, ["hookseal of acme"]) == (ended.code, listener.shown)
    assert ("TLSv1.3", "commonName=localhost", "commonName=authority") == (
        tls["version"],
        tls["subject"],
        tls["issuer"],
    )
    assert tls["cipher"].startswith("TLS_")
    assert tls["expires_at"] > "2026"


async def test_an_untrusted_certificate_gets_no_request(sending: Begun, tmp_path: Path) -> None:
    """An untrusted certificate is named, no request is written, and it exits 1."""
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path)) as listener:
        endpoint = await added(sending, listener.url)
        ended = await asked(sending, endpoint.pointer.endpoint_id)
    assert (1, None, None, "tls") == (
        ended.code,
        ended.json["dialled"],
        ended.json["tls"],
        ended.json["answer"]["outcome"],
    )
    assert "authority that is not trusted" in ended.json["answer"]["detail"]


async def test_a_forbidden_address_has_its_reason(begun: Begun) -> None:
    """If this machine is not allowed, each address has the reason why it is not dialled, and it exits 1."""
    settings = begun.settings | {"HOOKSEAL_ENV": "development", "HOOKSEAL_ALLOW_HTTP": "true"}
    endpoint = await added(begun, "http://localhost:9/hook")
    ended = await asked(replace(begun, settings=settings), endpoint.pointer.endpoint_id)
    assert 1 == ended.code
    assert {"127.0.0.1"} <= {each["address"] for each in ended.json["addresses"]}
    assert {(False, "loopback, RFC 1122")} == {(each["allowed"], each["reason"]) for each in ended.json["addresses"]}
    assert ("forbidden_address", None) == (ended.json["answer"]["outcome"], ended.json["dialled"])


async def test_each_failure_is_reported(sending: Begun) -> None:
    """Any other status, a closed port and an unresolvable name are reported as such (1)."""
    async with listening(status(500, b"no")) as listener:
        refusing = await added(sending, listener.url)
        ended = await asked(sending, refusing.pointer.endpoint_id)
    assert (1, "server_error", 500, "the receiver answered 500", "no") == (
        ended.code,
        *(ended.json["answer"][name] for name in ("outcome", "status", "detail", "snippet")),
    )
    nobody = await added(sending, f"http://127.0.0.1:{closed_port()}/")
    ended = await asked(sending, nobody.pointer.endpoint_id)
    assert (1, "connection") == (ended.code, ended.json["answer"]["outcome"])
    nowhere = await added(sending, "https://nowhere.invalid/")
    ended = await asked(sending, nowhere.pointer.endpoint_id)
    assert (1, [], "dns") == (ended.code, ended.json["addresses"], ended.json["answer"]["outcome"])
    assert "resolved" in ended.json["addresses_error"]


async def test_a_disabled_endpoint_is_pinged_and_an_altered_one_is_not(sending: Begun) -> None:
    """A disabled endpoint is tested; with an altered secret nothing is sent (5); an unknown endpoint exits 3."""
    async with listening(status(204)) as listener:
        endpoint = (await added(sending, listener.url)).pointer.endpoint_id
        await sending.run("endpoint", "disable", "--tenant", "acme", "--endpoint", endpoint)
        ended = await asked(sending, endpoint)
        assert (0, False) == (ended.code, ended.json["enabled"])
        await sending.stored.pool.execute(FLIP_A_BIT)
        ended = await asked(sending, endpoint)
        assert (5, "context_mismatch", 1) == (ended.code, ended.json["error"]["code"], len(listener.requests))
    for tenant, wanted in (("globex", endpoint), ("acme", "01890a5d-ac96-774b-bcce-b302099a8099")):
        ended = await sending.run("endpoint", "test", "--tenant", tenant, "--endpoint", wanted, "--json")
        assert 3 == ended.code


async def test_no_form_shows_a_secret(sending: Begun, tmp_path: Path) -> None:
    """The text has the same facts; no form shows a secret, a header value or the client key, at any log level."""
    debug = replace(sending, settings=sending.settings | {"HOOKSEAL_LOG_LEVEL": "debug"})
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        endpoint = await added(sending, listener.url, identity(CLIENT, AUTHORITY))
        as_json = await asked(debug, endpoint.pointer.endpoint_id)
        shown = await debug.run("endpoint", "test", "--tenant", "acme", "--endpoint", endpoint.pointer.endpoint_id)
    for entry in (
        "127.0.0.1  allowed",
        "TLSv1.3",
        "x-token: (sealed)",
        "signed     by db:acme:",
        "204 (delivered)",
    ):
        assert entry in shown.out
    canaries = [
        signing("secret", endpoint.secret.reveal()), Canary("header", (TOKEN,)), client_key("client key", CLIENT.key)
    ]  # fmt: skip
    assert [] == search({"printed": "".join(end.out + end.err for end in (as_json, shown)).encode()}, canaries)
