"""Google Secret Manager: names, credentials, repeats, and what its client logs."""

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from hookseal.ground.errors import HooksealError
from hookseal.secrets.errors import SecretDenied, SecretUnavailable
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.store.access import GcpAccess
from hookseal.secrets.store.gcp import GcpApi, secret_id
from hookseal.secrets.store.provider_api import Rest
from tests.doubles.google import service_account
from tests.doubles.providers import OWNER, google_api
from tests.secrets.samples import NAME, TENANT

pytestmark = pytest.mark.req("SEC-17")
CODE = grpc.StatusCode
REF = SecretRef(provider=Provider.GCP, tenant=TENANT, name=NAME, version=1)


def test_names_never_change() -> None:
    """The id of a secret is derived from tenant, name and number; another one would lose what is stored."""
    assert f"hookseal__acme__{NAME}__1" == secret_id("hookseal", REF)
    long = SecretRef(provider=Provider.GCP, tenant=TENANT, name="_" * 128, version=1)
    assert 255 >= len(secret_id("hookseal", long)) == len("hookseal__") + 64


async def test_a_service_account_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a service account is found by GOOGLE_APPLICATION_CREDENTIALS; the client is made without a call."""
    file = tmp_path / "google.json"
    file.write_bytes(service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    api = GcpApi(GcpAccess(project="tests"), prefix="hookseal")
    await api.prepare()
    await api.close()


async def test_missing_credentials_are_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without credentials is denied, with where they are looked for."""
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
    """Whichever call of a repeated write fails, the error says what to do; afterwards the write succeeds."""
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
    """With a clock that is an hour off no token is given out. Google's client reports that as a server that is away."""
    async with google_api() as (kept, api):
        await api.write(REF, b"ours", owner=OWNER, is_first=True)

        async def fails(_: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(CODE.UNAVAILABLE, "Getting metadata from plugin failed with error: ('invalid_grant')")

        kept.fault = fails
        with pytest.raises(SecretDenied, match="set the clock of this machine"):
            await api.read(REF)


@pytest.mark.parametrize("method", ["GetSecret", "DeleteSecret"])
async def test_a_refused_removal_names_the_remedy(method: str) -> None:
    """A removal that Google refuses is an error of hookseal, which says what to do."""
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
    """Even with every logger at the level of debugging, the client does not log what is stored."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("google").setLevel(logging.NOTSET)
    async with google_api() as (_, api):
        await api.write(REF, b"canary-of-the-test", owner=OWNER, is_first=True)
        await api.read(REF)
    records = caplog.text + "".join(repr(vars(record)) for record in caplog.records)

    for hidden in ("canary-of-the-test", "Y2FuYXJ5LW9mLXRoZS10ZXN0"):
        assert hidden not in records
