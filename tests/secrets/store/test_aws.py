"""AWS Secrets Manager: region, role, stages, and what its client logs. The server is moto, over HTTP."""

import asyncio
import json
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hookseal.errors import Cause, SecretDenied, SecretNotFound, SecretUnavailable
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.store.aws import AwsApi, version_id
from hookseal.secrets.store.port import CALL_SECONDS, Rest
from hookseal.secrets.store.several import Providers
from tests.doubles.aws import aws_client
from tests.doubles.certificates import issued
from tests.doubles.faulty_proxy import AlteredAnswer, Refusal, Silence, aws_refusal, faulty_proxy
from tests.doubles.providers import OWNER, PATIENCE_SECONDS, REGION, aws_access, prefix
from tests.secrets.samples import NAME, TENANT

pytestmark = pytest.mark.req("SEC-16")
ROLE = "arn:aws:iam::123456789012:role/hookseal"
FIRST, SECOND, THIRD = (SecretRef(provider=Provider.AWS, tenant=TENANT, name=NAME, version=n) for n in (1, 2, 3))


@asynccontextmanager
async def _api(role: str | None = None, *, own: str | None = None) -> AsyncIterator[AwsApi]:
    access = aws_access(own or prefix(), role)
    assert access.aws is not None
    api = AwsApi(access.aws, prefix=access.prefix, seconds=PATIENCE_SECONDS)
    try:
        yield api
    finally:
        await api.close()


async def _asked(operation: str, **arguments: Any) -> Any:
    """Ask moto with a client that is not hookseal's."""
    with aws_client(os.environ["AWS_ENDPOINT_URL"], "secretsmanager") as client:
        return await getattr(client, operation)(**arguments)


async def _stages(name: str) -> dict[str, list[str]]:
    found = (await _asked("describe_secret", SecretId=name))["VersionIdsToStages"]
    return {version: sorted(stages) for version, stages in found.items() if stages}


def test_the_id_of_a_version_never_changes() -> None:
    assert "0875f3bb-3de5-5936-8057-e8d40ecb08a0" == version_id(FIRST)
    assert len({version_id(ref) for ref in (FIRST, SECOND, replace(FIRST, name="n"))}) == 3
    assert version_id(FIRST) == version_id(replace(FIRST, provider=Provider.DB))


@pytest.mark.req("SEC-07", part="causes")
async def test_a_source_of_credentials_that_fails_is_named(
    aws_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with _api() as api:
        with pytest.raises(SecretUnavailable, match=r"gives this process its credentials of AWS fails") as raised:
            await api.read(FIRST)
    assert Cause.FAILING is raised.value.cause


@pytest.mark.req("SEC-07", part="causes")
async def test_a_server_that_is_not_trusted_is_named(
    aws_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_echo(issued("127.0.0.1").server(tmp_path)) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
        async with _api() as api:
            with pytest.raises(SecretUnavailable, match="does not prove by TLS that it is the right server") as raised:
                await api.read(FIRST)
    assert Cause.FOREIGN is raised.value.cause


@asynccontextmanager
async def tls_echo(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen by TLS on a port of this machine."""
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_each_write_moves_the_stages(aws_url: str) -> None:
    own = prefix()
    async with _api(own=own) as api:
        for number, ref in enumerate((FIRST, SECOND, THIRD)):
            await api.write(ref, str(number).encode(), owner=OWNER, is_first=ref is FIRST)
        stages = await _stages(f"{own}/{TENANT}/{NAME}")
        assert {version_id(THIRD): ["AWSCURRENT"], version_id(SECOND): ["AWSPREVIOUS"]} == stages
        assert [b"0", b"1", b"2"] == [await api.read(ref) for ref in (FIRST, SECOND, THIRD)]


async def test_an_abandoned_version_gives_the_current_stage_back(aws_url: str) -> None:
    own = prefix()
    async with _api(own=own) as api:
        for ref in (FIRST, SECOND, THIRD):
            await api.write(ref, b"x", owner=OWNER, is_first=ref is FIRST)
        await api.remove(THIRD, Rest(is_needed=True, active=SECOND), owner=OWNER)
        stages = await _stages(f"{own}/{TENANT}/{NAME}")
        assert ["AWSCURRENT"] == stages[version_id(SECOND)]
        assert version_id(THIRD) not in stages
        assert b"x" == await api.read(FIRST)


async def test_a_rotation_at_aws_changes_no_pinned_version(aws_url: str) -> None:
    own = prefix()
    async with _api(own=own) as api:
        await api.write(FIRST, b"ours", owner=OWNER, is_first=True)
        await _asked("put_secret_value", SecretId=f"{own}/{TENANT}/{NAME}", SecretString="theirs")
        assert b"ours" == await api.read(FIRST)


async def test_a_secret_scheduled_for_deletion_is_not_found(aws_url: str) -> None:
    own = prefix()
    async with _api(own=own) as api:
        await api.write(FIRST, b"x", owner=OWNER, is_first=True)
        await _asked("delete_secret", SecretId=f"{own}/{TENANT}/{NAME}", RecoveryWindowInDays=7)
        with pytest.raises(SecretNotFound, match="somebody removed it"):
            await api.read(FIRST)
        with pytest.raises(SecretDenied, match="restore-secret"):
            await api.write(SECOND, b"y", owner=OWNER, is_first=True)
        await api.remove(FIRST, Rest(is_needed=False), owner=OWNER)
        await _asked("restore_secret", SecretId=f"{own}/{TENANT}/{NAME}")
        assert b"x" == await api.read(FIRST)


async def test_requests_use_the_given_region_and_role(aws_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    async with faulty_proxy(aws_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        async with _api(ROLE) as api:
            await api.write(FIRST, b"x", owner=OWNER, is_first=True)
            await api.read(FIRST)
    bodies = [body for body in proxy.bodies if b"AssumeRole" in body]
    assert 1 == len(bodies)
    assert b"role%2Fhookseal" in bodies[0]
    signed = [headers["Authorization"] for headers in proxy.headers]
    assert all(f"/{REGION}/" in each for each in signed)
    assert not any("Credential=test/" in each for each in signed[1:]), "the role signs, not who assumed it"


async def test_missing_credentials_are_denied(aws_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for role in (None, ROLE):
        async with _api(role) as api:
            for _ in range(2):
                with pytest.raises(SecretDenied, match=r"NoCredentialsError.*AWS_ACCESS_KEY_ID"):
                    await api.read(FIRST)


async def test_a_missing_right_is_named(aws_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty_proxy(aws_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        async with _api() as api:
            for call, right in (
                (lambda: api.write(FIRST, b"x", owner=OWNER, is_first=True), "CreateSecret"),
                (lambda: api.write(SECOND, b"x", owner=OWNER, is_first=False), "DescribeSecret"),
                (lambda: api.write(THIRD, b"x", owner=OWNER, is_first=False), "PutSecretValue"),
                (lambda: api.read(FIRST), "GetSecretValue"),
                (
                    lambda: api.remove(THIRD, Rest(is_needed=True, active=SECOND), owner=OWNER),
                    "UpdateSecretVersionStage",
                ),
                (lambda: api.remove(FIRST, Rest(is_needed=False), owner=OWNER), "DeleteSecret"),
            ):
                proxy.fault, proxy.only = aws_refusal("AccessDeniedException"), f".{right}"
                with pytest.raises(SecretDenied, match=rf"grant its role or user .*secretsmanager:{right}"):
                    await call()
                proxy.fault = None
                await call()


@pytest.mark.parametrize(
    "settings", [{"AWS_PROFILE": "of-another-machine"}, {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "nothing"}], ids=str
)
async def test_a_wrong_profile_or_address_is_no_outage(
    aws_url: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with _api() as api:
        for call in (api.prepare, lambda: api.read(FIRST)):
            with pytest.raises(SecretDenied, match="correct the settings of AWS, such as AWS_PROFILE"):
                await call()


@pytest.mark.req("SEC-15", part="logs")
async def test_no_log_contains_a_value(aws_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "botocore.parsers", "botocore.endpoint"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    async with _api() as api:
        await api.write(FIRST, b"canary-of-the-test", owner=OWNER, is_first=True)
        await api.read(FIRST)
    text = caplog.text + json.dumps([record.getMessage() for record in caplog.records])

    for hidden in ("canary-of-the-test", "Y2FuYXJ5LW9mLXRoZS10ZXN0"):
        assert hidden not in text


@pytest.mark.parametrize("of", ["role", "web identity"])
async def test_credentials_that_are_valid_serve_while_sts_is_away(
    of: str, aws_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From 15 minutes before they end AWS's library renews credentials: if STS fails or hangs, reads go on."""

    def ends_in_minutes(body: bytes) -> bytes:
        end = (datetime.now(UTC) + timedelta(minutes=12)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return re.sub(rb"<Expiration>[^<]*", b"<Expiration>" + end.encode(), body)

    if of == "web identity":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        (tmp_path / "token").write_text("a.b.c")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    async with faulty_proxy(aws_url) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        sts.fault = AlteredAnswer(change=ends_in_minutes)
        access = aws_access(prefix(), ROLE if of == "role" else None)
        providers = Providers(replace(access, call_seconds=CALL_SECONDS))
        try:
            api = providers.api(Provider.AWS)
            await api.write(FIRST, b"x", owner=OWNER, is_first=True)
            for fault in (Silence.HANG, Silence.RESET, Refusal(status=500), aws_refusal("Throttling", 400)):
                asked, sts.fault = sts.requests, fault
                async with asyncio.timeout(2 * CALL_SECONDS):  # it takes half of the time of a call, on an idle machine
                    assert b"x" == await api.read(FIRST)
                assert asked < sts.requests, "they were to be renewed"
        finally:
            await providers.close()
