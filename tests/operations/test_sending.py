"""Workers and commands send requests as the settings say."""

from pathlib import Path

import pytest

from hookseal.config.load import NOTHING, load
from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.ground.clock import SystemClock
from hookseal.operations import sending
from tests.dispatcher.http.test_transport import request_to
from tests.doubles.certificates import authority, issued
from tests.doubles.egress_proxy import proxying
from tests.doubles.receivers import listening, status


@pytest.mark.req("DEL-11", part="proxy")
async def test_requests_follow_the_settings(tmp_path: Path) -> None:
    vouching = authority()
    trusted = tmp_path / "ca.pem"
    trusted.write_text(vouching.pem, encoding="ascii")
    server = issued("localhost", by=vouching).server(tmp_path)
    async with listening(status(204), tls=server) as listener, proxying() as proxy:
        environ = {
            "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8@acme",
            "HOOKSEAL_EGRESS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}",
            "HOOKSEAL_EGRESS_CA_FILE": str(trusted),
        }
        async with sending.transport(load(environ, needs=NOTHING).egress, SystemClock()) as transport:
            allowed, other = [
                await transport.send(request_to(listener.url, tenant=name)) for name in ("acme", "globex")
            ]

    assert Reply(status=204, snippet="") == allowed
    assert isinstance(other, Failure)
    assert FailureKind.FORBIDDEN_ADDRESS is other.kind
    assert [f"127.0.0.1:{listener.port}"] == proxy.targets
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in proxy.heads[0]
