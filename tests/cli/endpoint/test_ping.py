"""`hookseal endpoint test` against real receivers: it shows the connection, the signed bytes and the answer."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hookseal.admin import Ping
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.secrets.extras.tls_identity import TlsIdentity
from tests.cli.command import Ended
from tests.cli.endpoint.test_canary import SENT
from tests.cli.installation import Begun
from tests.doubles.client_certificates import AlertingTlsServer, Authority, identity, serving
from tests.doubles.receivers import listening, status
from tests.worker.canary import Canary, client_key, search, signing

pytestmark = pytest.mark.req("OPS-12")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client("hookseal of acme")
TOKEN = b"canary-of-a-header-4f1d"


@pytest.fixture
async def sending(begun: Begun) -> Begun:
    """Return an installation with settings that allow requests to this machine."""
    return replace(begun, settings=begun.settings | SENT)


async def added(begun: Begun, url: str, tls: TlsIdentity = TlsIdentity(), **how: Any) -> AddedEndpoint:  # noqa: B008
    """Add an endpoint for that url with a header of its own."""
    secret = how.pop("secret", None)
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), settings={"timeout_ms": 15_000}, **how)
    return await begun.stored.add(new, secret, headers={"x-token": TOKEN}, tls=tls)


async def asked(begun: Begun, endpoint: EndpointId | str, *more: str) -> Ended:
    """Run `endpoint test` for it."""
    return await begun.run("endpoint", "test", "--tenant", "acme", "--endpoint", endpoint, *(more or ("--json",)))


@pytest.mark.req("OPS-04", part="json")
async def test_the_json_is_the_result(sending: Begun) -> None:
    """The JSON is the result of the ping, field by field; it exits 0 after a 2xx and 1 after anything else."""
    ends = []
    for answer in (status(204), status(500, b"no")):
        async with listening(answer) as listener:
            ends.append(await asked(sending, (await added(sending, listener.url)).pointer.endpoint_id))
    ended, failed = ends
    assert (0, "", [each.name for each in fields(Ping)]) == (ended.code, ended.err, [*ended.json])
    assert [{"address": "127.0.0.1", "allowed": True, "reason": None}] == ended.json["addresses"]
    assert (1, "server_error", "no") == (failed.code, *(failed.json["answer"][name] for name in ("outcome", "snippet")))


async def test_the_body_of_an_answer_is_no_command_to_copy(sending: Begun) -> None:
    """It stands behind its label: a line that begins with two spaces and `hookseal` would be one of hookseal."""
    async with listening(status(500, b"hookseal endpoint delete --yes")) as listener:
        endpoint = (await added(sending, listener.url)).pointer.endpoint_id
        ended = await sending.run("endpoint", "test", "--tenant", "acme", "--endpoint", endpoint)
    assert "\nbody       hookseal endpoint delete --yes\n" in ended.out


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
