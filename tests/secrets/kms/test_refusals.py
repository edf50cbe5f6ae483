"""Failures of each KMS: transient, or an error that names who must do what."""

import asyncio
import base64
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from hookseal.errors import SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms import aws, transit
from hookseal.secrets.kms.gcp import GcpKms
from hookseal.secrets.kms.keys import opened
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused, KmsSettings
from tests.doubles.aws import CREDENTIALS
from tests.doubles.google import service_account
from tests.doubles.openbao import as_root, token_for
from tests.doubles.serving import serving
from tests.secrets.kms.sites import SECONDS, aws_site, failing_gcp, openbao_server, openbao_site
from tests.secrets.kms.test_wrapped import ARN, CRYPTO_KEY
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-25")

BINDING = Binding(installation="production", key_id="0" * 16)
PLAIN = SecretMaterial(b"canary-of-a-master-key-32-bytes!")
AWS_KEY, GCP_KEY = KmsKey.parse(ARN), KmsKey.parse(CRYPTO_KEY)


async def test_each_answer_of_aws_is_transient_or_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Throttling and failures of AWS pass; denials, disabled keys and a wrong clock say what to do."""
    transient = [(400, "ThrottlingException"), (500, "KMSInternalException"), (503, "ServiceUnavailable")]
    final = [
        (400, "AccessDeniedException", "kms:Decrypt"),
        (400, "DisabledException", "enable the key"),
        (400, "IncorrectKeyException", "SECRETS_KMS_INSTALLATION"),
        (403, "InvalidSignatureException", "the clock of this machine"),
        (400, "ExpiredTokenException", "renew the credentials"),
    ]
    answers = [*transient, *((status, code) for status, code, _ in final)]

    async def answer(_request: web.Request) -> web.Response:
        status, code = answers.pop(0)
        return web.json_response({"__type": code, "message": "words of AWS"}, status=status)

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with serving(answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", address)
        async with aws.opened(AWS_KEY, seconds=SECONDS) as kms:
            for _, code in transient:
                with pytest.raises(SecretUnavailable, match=code):
                    await kms.unwrap(b"x" * 40, BINDING)
            for _, _, advice in final:
                with pytest.raises(KmsRefused, match=advice) as refused:
                    await kms.unwrap(b"x" * 40, BINDING)
                assert "words of AWS" not in str(refused.value)
    assert [] == answers  # nothing was repeated


async def test_missing_aws_credentials_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without credentials is refused by name."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    async with aws.opened(AWS_KEY, seconds=SECONDS) as kms:
        with pytest.raises(KmsRefused, match="AWS_ACCESS_KEY_ID"):
            await kms.wrap(PLAIN, BINDING)


async def test_an_unavailable_source_of_credentials_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what gives out the credentials fails, as an agent that has not started yet, the start asks again."""
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with aws.opened(AWS_KEY, seconds=SECONDS) as kms:
        with pytest.raises(SecretUnavailable, match="what gives this process its credentials of AWS fails"):
            await kms.unwrap(b"x" * 40, BINDING)


async def test_a_missing_profile_or_file_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile of AWS, or a file of Google, that is not there is an error of the settings."""
    monkeypatch.setenv("AWS_PROFILE", "of-another-machine")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    for key, named in ((AWS_KEY, "AWS_PROFILE"), (GCP_KEY, "GOOGLE_APPLICATION_CREDENTIALS")):
        with pytest.raises(KmsRefused, match=named):
            async with opened(KmsSettings(key=key, installation="production")) as kms:
                await kms.wrap(PLAIN, BINDING)


@pytest.mark.timeout(20)
async def test_slow_gcp_credentials_do_not_block_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not held up while Google's library reads credentials, or asks the machine for them."""
    pipe = tmp_path / "google.json"
    os.mkfifo(pipe)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(pipe))

    async def found() -> bool:
        async with opened(KmsSettings(key=GCP_KEY, installation="production")) as kms:
            return isinstance(kms, GcpKms)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(found())
        pipe_end = await eventually(lambda: _writable(pipe))
        os.write(pipe_end, service_account())
        os.close(pipe_end)
    assert task.result()


async def _writable(pipe: Path) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it yet
        return None


async def test_each_answer_of_gcp_is_transient_or_final() -> None:
    """The official client repeats nothing by itself; transient and final answers are distinguished."""
    transient = {
        grpc.StatusCode.UNAVAILABLE: "does not answer",
        grpc.StatusCode.INTERNAL: "cannot answer at the moment .InternalServerError",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "limits requests: .*raise the quota of Cloud KMS",
    }
    final = {
        grpc.StatusCode.PERMISSION_DENIED: "cryptoKeyDecrypter",
        grpc.StatusCode.UNAUTHENTICATED: "the clock of this machine",
        grpc.StatusCode.FAILED_PRECONDITION: "enable the version",
    }
    async with failing_gcp(GCP_KEY) as (server, kms):
        made = await kms.wrap(PLAIN, BINDING)
        for code, cause in transient.items():
            server.failing, server.calls = code, 0
            with pytest.raises(SecretUnavailable, match=cause):
                await kms.unwrap(made, BINDING)
            assert 1 == server.calls
        for code, advice in final.items():
            server.failing = code
            with pytest.raises(KmsRefused, match=advice):
                await kms.unwrap(made, BINDING)
        server.failing = grpc.StatusCode.UNAVAILABLE
        server.details = "Getting metadata from plugin failed with error: ('invalid_grant: Invalid JWT')"
        with pytest.raises(KmsRefused, match="correct the clock"):
            await kms.unwrap(made, BINDING)


async def test_gcp_data_with_a_wrong_checksum_is_not_used() -> None:
    """Data that was altered on the way is not used, in either direction."""
    async with failing_gcp(GCP_KEY) as (server, kms):
        made = await kms.wrap(PLAIN, BINDING)
        server.flips_a_bit = True
        with pytest.raises(SecretUnavailable, match="checksum"):
            await kms.wrap(PLAIN, BINDING)
        with pytest.raises(SecretUnavailable, match="checksum"):
            await kms.unwrap(made, BINDING)


async def test_one_right_of_openbao_suffices_for_a_worker(openbao_address: str) -> None:
    """A policy with one right is enough for a worker and for nothing else; a key version below the minimum is named."""
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        mount = site.one.part("mount")
        made = await kms.wrap(PLAIN, BINDING)
        token = await token_for(openbao_address, f'path "{mount}/decrypt/one" {{ capabilities = ["update"] }}')
        async with transit.opened(site.one, openbao_server(openbao_address, token), seconds=SECONDS) as worker:
            assert PLAIN == await worker.unwrap(made, BINDING)
            with pytest.raises(KmsRefused, match=f"denies this token the request to {mount}/encrypt/one"):
                await worker.wrap(PLAIN, BINDING)
        await site.rotate()
        await as_root(openbao_address, "POST", f"{mount}/keys/one/config", {"min_decryption_version": 2})
        with pytest.raises(KmsRefused, match="lower its min_decryption_version"):
            await kms.unwrap(made, BINDING)
        await as_root(openbao_address, "POST", f"{mount}/keys/rsa", {"type": "rsa-2048"})
        async with site.opened(KmsKey.parse(f"openbao:{mount}/rsa")) as rsa:
            with pytest.raises(KmsRefused, match="aes256-gcm96"):
                await rsa.wrap(PLAIN, BINDING)


async def test_openbao_needs_an_address() -> None:
    """Without an address there is nothing to ask."""
    with pytest.raises(KmsRefused, match="BAO_ADDR"):
        async with opened(KmsSettings(key=KmsKey.parse("openbao:transit/one"), installation="production")):
            pass


@pytest.fixture
def debugging(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """Yield the log of a process in which everything is set to DEBUG."""
    monkeypatch.setenv("GOOGLE_SDK_PYTHON_LOGGING_SCOPE", "google")
    names = ("google", "google.cloud.kms_v1", "grpc", "aiohttp")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).propagate = True  # the client of Google ends it, and logs by itself
    with caplog.at_level(logging.DEBUG):
        yield caplog
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.req("SEC-15", part="kms")
async def test_no_key_is_logged(
    debugging: pytest.LogCaptureFixture, aws_address: str, openbao_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At DEBUG, no client logs a request or an answer with a key."""
    async with failing_gcp(GCP_KEY) as (_, kms):
        assert PLAIN == await kms.unwrap(await kms.wrap(PLAIN, BINDING), BINDING)
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        assert PLAIN == await kms.unwrap(await kms.wrap(PLAIN, BINDING), BINDING)
    async with aws_site(aws_address, monkeypatch) as site, site.opened(site.one) as kms:
        assert PLAIN == await kms.unwrap(await kms.wrap(PLAIN, BINDING), BINDING)

    shown = "\n".join(f"{record.name} {record.getMessage()} {record.__dict__}" for record in debugging.records)
    value = PLAIN.reveal()
    assert [] == [text for text in (value.decode(), base64.b64encode(value).decode(), value.hex()) if text in shown]
