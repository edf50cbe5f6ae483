"""Google Secret Manager: names, credentials, repeats, and what its client logs."""

import asyncio
import json
import logging
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import google.auth.transport.requests
import grpc
import pytest
from aiohttp import web
from google.auth.exceptions import TransportError
from google.auth.transport.grpc import AuthMetadataPlugin
from google.auth.transport.requests import Request
from google.oauth2 import service_account as service_account_file

from hookseal.errors import Cause, HooksealError, SecretDenied, SecretUnavailable
from hookseal.ground.clock import SystemClock
from hookseal.secrets import google_client
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.kms import gcp as kms_gcp
from hookseal.secrets.kms.wrapped import KmsKey
from hookseal.secrets.resolve.reader import BUDGET_SECONDS
from hookseal.secrets.store.gcp import GcpApi, secret_id
from hookseal.secrets.store.port import GcpAccess, ProviderApi, Rest, SecretStore
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.certificates import authority, issued
from tests.doubles.google import PROJECT, google_secrets, service_account
from tests.doubles.providers import OWNER, google_api
from tests.doubles.serving import serving
from tests.secrets.doubles import reader_on
from tests.secrets.samples import NAME, TENANT

pytestmark = pytest.mark.req("SEC-17")
CODE = grpc.StatusCode
REF = SecretRef(provider=Provider.GCP, tenant=TENANT, name=NAME, version=1)


def test_names_never_change() -> None:
    assert f"hookseal__acme__{NAME}__1" == secret_id("hookseal", REF)
    long = SecretRef(provider=Provider.GCP, tenant=TENANT, name="_" * 128, version=1)
    assert 255 >= len(secret_id("hookseal", long)) == len("hookseal__") + 64


async def test_a_service_account_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "google.json"
    file.write_bytes(service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    api = GcpApi(GcpAccess(project="tests"), prefix="hookseal")
    await api.prepare()
    await api.close()


async def test_missing_credentials_are_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    api = GcpApi(GcpAccess(project="tests"), prefix="hookseal")
    for call in (api.prepare, lambda: api.read(REF)):
        with pytest.raises(SecretDenied, match=r"DefaultCredentialsError.*GOOGLE_APPLICATION_CREDENTIALS"):
            await call()
    await api.close()


@pytest.mark.parametrize(
    ("method", "code", "error", "message"),
    [
        ("CreateSecret", CODE.FAILED_PRECONDITION, SecretDenied, "organisation policy"),
        ("CreateSecret", CODE.NOT_FOUND, SecretDenied, "GOOGLE_CLOUD_PROJECT"),
        ("CreateSecret", CODE.PERMISSION_DENIED, SecretDenied, "secretmanager.secrets.create"),
        ("GetSecret", CODE.NOT_FOUND, SecretUnavailable, "another process changes the secret"),
        ("GetSecret", CODE.PERMISSION_DENIED, SecretDenied, "secretmanager.secrets.get"),
        ("AddSecretVersion", CODE.NOT_FOUND, SecretUnavailable, "another process changes the secret"),
        ("AddSecretVersion", CODE.FAILED_PRECONDITION, SecretDenied, "look the call up in the audit logs"),
        ("AddSecretVersion", CODE.PERMISSION_DENIED, SecretDenied, "secretmanager.versions.add"),
        ("AccessSecretVersion", CODE.PERMISSION_DENIED, SecretDenied, "secretmanager.versions.access"),
    ],
)
async def test_a_failed_write_can_be_repeated(
    method: str, code: grpc.StatusCode, error: type[HooksealError], message: str
) -> None:
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)

        async def fails(called: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            if called == method:
                await context.abort(code, "do not show me")

        kept.fault = fails
        with pytest.raises(error, match=message) as failed:
            await api.write(REF, b"ours", owner=OWNER, is_first=True)
        assert "do not show me" not in str(failed.value)
        kept.fault = None
        await api.write(REF, b"ours", owner=OWNER, is_first=True)


async def test_a_wrong_clock_is_reported_as_unavailable() -> None:
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)

        async def fails(_: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(CODE.UNAVAILABLE, "Getting metadata from plugin failed with error: ('invalid_grant')")

        kept.fault = fails
        with pytest.raises(SecretDenied, match="set the clock of this machine"):
            await api.read(REF)


@pytest.mark.req("SEC-07", part="causes")
async def test_a_server_of_tokens_that_is_away_is_named(caplog: pytest.LogCaptureFixture) -> None:
    ours = authority()
    of_google = issued("127.0.0.1", by=ours)
    tls = grpc.ssl_server_credentials([(of_google.both, of_google.pem.encode())])
    account = json.loads(service_account())
    made: Any = service_account_file.Credentials
    credentials = made.from_service_account_info(account, scopes=["a"])
    plugin = cast("Any", AuthMetadataPlugin)(credentials, google.auth.transport.requests.Request())

    async with google_secrets(tls=tls) as (_, port):

        def channel(options: Any) -> grpc.aio.Channel:
            trusted = grpc.ssl_channel_credentials(ours.pem.encode())
            both = grpc.composite_channel_credentials(trusted, grpc.metadata_call_credentials(plugin))
            return grpc.aio.secure_channel(f"127.0.0.1:{port}", both, options=options)

        api = GcpApi(GcpAccess(project=PROJECT, channel=channel), prefix="hookseal")
        with pytest.raises(SecretUnavailable, match="gives this process its credentials of Google does not answer"):
            await api.read(REF)
        await api.close()
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_server_that_is_not_trusted_is_named() -> None:
    of_google = issued("127.0.0.1")
    tls = grpc.ssl_server_credentials([(of_google.both, of_google.pem.encode())])
    trusted = grpc.ssl_channel_credentials(authority().pem.encode())
    async with google_secrets(tls=tls) as (_, port):
        channel = partial(grpc.aio.secure_channel, f"127.0.0.1:{port}", trusted)
        api = GcpApi(GcpAccess(project=PROJECT, channel=channel), prefix="hookseal")
        with pytest.raises(SecretUnavailable, match="does not prove by TLS that it is the right server") as raised:
            await api.read(REF)
        await api.close()
    assert Cause.FOREIGN is raised.value.cause


async def test_another_server_in_place_of_google_is_named() -> None:
    runner = web.ServerRunner(web.Server(_page), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    channel = partial(grpc.aio.insecure_channel, f"127.0.0.1:{runner.addresses[0][1]}")
    api = GcpApi(GcpAccess(project=PROJECT, channel=channel), prefix="hookseal")
    with pytest.raises(SecretUnavailable, match="is not Google") as raised:
        await api.read(REF)
    assert Cause.FOREIGN is raised.value.cause
    await api.close()
    await runner.cleanup()


async def _page(_request: web.BaseRequest) -> web.Response:
    return web.Response(body=b"<html>")


@dataclass
class _Reading:
    """A store that is nothing but this provider, to read with the time limit of an attempt."""

    api: ProviderApi
    provider: Provider = Provider.GCP
    providers: frozenset[Provider] = frozenset({Provider.GCP})

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Read the version."""
        return SecretMaterial(await self.api.read(ref))


class _Away:
    """A port that ends each connection at once, as that of a server that restarts; it knows when each one came."""

    def __init__(self) -> None:
        self.came_at: list[float] = []
        self.came = asyncio.Condition()

    async def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End one connection."""
        writer.transport.abort()
        async with self.came:
            self.came_at.append(asyncio.get_running_loop().time())
            self.came.notify_all()


async def test_the_first_read_after_an_outage_succeeds() -> None:
    """Google is away for many tries to connect, and returns: the first attempt of a delivery then has its secret.

    Without a bound gRPC waits longer after each try, up to two minutes: here 10 s after the sixth.
    """
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)
        port = kept.port
        reader = reader_on(cast("SecretStore", _Reading(api)), SystemClock())
        await kept.stop()
        away = _Away()
        server = await asyncio.start_server(away.serve, "127.0.0.1", port)
        with pytest.raises(SecretUnavailable, match="gave no answer"):
            await reader.read([REF], purpose=Purpose.WEBHOOK_SIGNING)
        async with asyncio.timeout(SOON_SECONDS), away.came:
            await away.came.wait_for(lambda: len(away.came_at) >= 6)
        server.close()
        await server.wait_closed()
        async with google_secrets(kept, port):
            read = await reader.read([REF], purpose=Purpose.WEBHOOK_SIGNING)
    assert (b"ours",) == tuple(material.reveal() for material in read)
    gaps = [later - earlier for earlier, later in pairwise(away.came_at)]
    assert max(gaps) < BUDGET_SECONDS


@pytest.mark.parametrize("method", ["GetSecret", "DeleteSecret"])
async def test_a_refused_removal_names_the_remedy(method: str) -> None:
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)

        async def fails(called: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            if called == method:
                await context.abort(CODE.FAILED_PRECONDITION, "do not show me")

        kept.fault = fails
        with pytest.raises(SecretDenied, match="look the call up in the audit logs"):
            await api.remove(REF, Rest(is_needed=False), owner=OWNER)


async def test_versions_are_pinned() -> None:
    """A version that another program adds is not read: the first version is read by its number, never `latest`."""
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)
        (secret,) = kept.secrets.values()
        secret.versions.append(b"theirs")
        secret.states[2] = secret.states[1]
        assert b"ours" == await api.read(REF)


@pytest.mark.req("SEC-15", part="logs")
async def test_no_log_contains_a_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("google").setLevel(logging.NOTSET)
    async with google_api() as (_, api):
        await api.write(REF, b"canary-of-the-test", owner=OWNER, is_first=True)
        await api.read(REF)
    records = caplog.text + "".join(repr(vars(record)) for record in caplog.records)

    for hidden in ("canary-of-the-test", "Y2FuYXJ5LW9mLXRoZS10ZXN0"):
        assert hidden not in records


async def test_a_hanging_server_of_tokens_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await released.wait()
        return web.Response(status=500)

    async with serving(hang) as address:
        file = tmp_path / "google.json"
        file.write_text(json.dumps(json.loads(service_account()) | {"token_uri": f"{address}/token"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        found = google_client.found_credentials(may_be_plain=False, token_seconds=0.2)
        try:
            async with asyncio.timeout(10.0):
                with pytest.raises(TransportError):
                    await asyncio.to_thread(found.before_request, Request(), "POST", "https://x", {})
        finally:
            released.set()


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"access_token": "t", "expires_in": "x"}'], ids=repr)
async def test_an_unreadable_answer_about_a_token_is_transient(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in between answers in place of the server of tokens: the read is transient, not an error of ours."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with serving(answer) as address:
        account = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{address}/token",
            "credential_source": {"file": __file__},
        }
        file = tmp_path / "google.json"
        file.write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        api = GcpApi(GcpAccess(project="tests"), prefix="hookseal")
        for call in (api.prepare, lambda: api.read(REF)):
            with pytest.raises(SecretUnavailable, match="credentials of Google does not answer"):
                await call()
        await api.close()
        key = KmsKey.parse("gcp:projects/acme/locations/europe-west1/keyRings/hookseal/cryptoKeys/one")
        with pytest.raises(SecretUnavailable, match="credentials of Google does not answer"):
            async with kms_gcp.opened(key, seconds=1.0):
                pass
