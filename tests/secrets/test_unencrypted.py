"""In production no client of a KMS or a store sends a key, a token or a secret over http to another machine."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from botocore.config import Config

from hookseal.config.load import load
from hookseal.errors import ConfigError, SecretDenied, SecretUnavailable
from hookseal.ground.tls import is_protected
from hookseal.secrets import aws_session
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.kms import aws, gcp
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused
from hookseal.secrets.store.port import Access, AwsAccess, GcpAccess
from hookseal.secrets.store.several import Providers
from tests.cli.command import hookseal
from tests.config.test_load import environment
from tests.doubles.google import service_account
from tests.doubles.providers import AWS_ENVIRONMENT, REGION
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.secrets.samples import NAME, TENANT

pytestmark = pytest.mark.req("SEC-07", part="providers")
ELSEWHERE = "http://hookseal-of-the-tests.invalid:4566"
ARN = "arn:aws:iam::123456789012:role/hookseal"
AWS_KEY = KmsKey.parse(f"aws:arn:aws:kms:{REGION}:123456789012:key/0f6f4f0b-7a11-4d0c-9d3b-6e2a0c9e52a3")
GCP_KEY = KmsKey.parse("gcp:projects/acme/locations/europe-west1/keyRings/hookseal/cryptoKeys/one")
BINDING = Binding(installation="production", key_id="0123456789abcdef")
SECONDS = 5.0


async def _wrap(*, may_be_plain: bool = False) -> None:
    async with aws.opened(AWS_KEY, seconds=SECONDS, may_be_plain=may_be_plain) as kms:
        await kms.wrap(SecretMaterial(b"x" * 32), BINDING)


async def _prepare(*, may_be_plain: bool = False, role: str | None = None) -> None:
    access = AwsAccess(region=REGION, role_arn=role, may_be_plain=may_be_plain)
    providers = Providers(Access(aws=access))
    try:
        api = providers.api(Provider.AWS)
        await api.prepare()
        await api.read(SecretRef(provider=Provider.AWS, tenant=TENANT, name=NAME, version=1))
    finally:
        await providers.close()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give an environment without a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.fixture
def aws_settings(settings: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give clients of AWS credentials, and no other setting."""
    for name, value in AWS_ENVIRONMENT.items():
        settings.setenv(name, value)
    return settings


@pytest.mark.parametrize("of_kms", [True, False], ids=["kms", "store"])
@pytest.mark.parametrize("way", ["all", "one", "file", "file of services"])
async def test_http_to_another_machine_is_refused(
    way: str, of_kms: bool, aws_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = "AWS_ENDPOINT_URL_KMS" if of_kms else "AWS_ENDPOINT_URL_SECRETS_MANAGER"
    service = "kms" if of_kms else "secrets_manager"
    call: Callable[..., Awaitable[None]] = _wrap if of_kms else _prepare
    (tmp_path / "config").write_text(
        f"[default]\nendpoint_url = {ELSEWHERE}\n"
        if way == "file"
        else f"[default]\nservices = ours\n[services ours]\n{service} =\n  endpoint_url = {ELSEWHERE}\n"
    )
    if way.startswith("file"):
        aws_settings.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    else:
        aws_settings.setenv("AWS_ENDPOINT_URL" if way == "all" else own, ELSEWHERE)
    with pytest.raises(
        ConfigError, match=rf"over http.*{own} or AWS_ENDPOINT_URL, or in endpoint_url.*AWS_CONFIG_FILE"
    ):
        await call()
    with pytest.raises(SecretUnavailable):  # outside production it is asked
        await call(may_be_plain=True)


async def test_a_read_in_mid_run_is_denied(aws_settings: pytest.MonkeyPatch) -> None:
    aws_settings.setenv("AWS_ENDPOINT_URL", ELSEWHERE)
    providers = Providers(Access(aws=AwsAccess(region=REGION)))
    with pytest.raises(SecretDenied, match="over http"):
        await providers.api(Provider.AWS).read(SecretRef(provider=Provider.AWS, tenant=TENANT, name=NAME, version=1))
    await providers.close()


@pytest.mark.parametrize("of", ["role", "web identity"])
async def test_the_client_that_gets_a_role_is_refused_too(
    of: str, aws_settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    aws_settings.setenv("AWS_ENDPOINT_URL_STS", ELSEWHERE)
    if of == "web identity":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            aws_settings.delenv(name)
        (tmp_path / "token").write_text("a.b.c")
        aws_settings.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        aws_settings.setenv("AWS_ROLE_ARN", ARN)
    calls: list[Callable[[], Awaitable[None]]] = [partial(_prepare, role=ARN)]
    for call in [*calls, _wrap] if of == "web identity" else calls:
        with pytest.raises(ConfigError, match=r"sts.*over http.*AWS_ENDPOINT_URL_STS"):
            await call()


async def test_no_client_of_a_session_sends_in_the_clear(aws_settings: pytest.MonkeyPatch) -> None:
    made = aws_session.session(may_be_plain=False, seconds=SECONDS)
    client = made.create_client("sts", region_name=REGION, endpoint_url=ELSEWHERE, config=Config())
    with pytest.raises(ConfigError, match="over http"):
        client.get_caller_identity()
    aws_settings.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", ELSEWHERE)
    with pytest.raises(ConfigError, match="AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        aws_session.session(may_be_plain=False, seconds=SECONDS)
    aws_settings.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")
    aws_session.session(may_be_plain=False, seconds=SECONDS)


async def test_a_proxy_does_not_receive_what_is_for_this_machine(aws_settings: pytest.MonkeyPatch) -> None:
    """Botocore sends http of a loopback address through HTTP_PROXY: it is refused, unless NO_PROXY has it."""
    async with _recording() as (proxy, asked):
        aws_settings.setenv("HTTP_PROXY", proxy)
        aws_settings.setenv("http_proxy", proxy)
        aws_settings.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        for call in (_wrap, _prepare):
            with pytest.raises(ConfigError, match=r"without a proxy .NO_PROXY"):
                await call()
        assert [] == asked
        for name in ("NO_PROXY", "no_proxy"):
            aws_settings.setenv(name, "127.0.0.1:1")
        with pytest.raises(SecretUnavailable):
            await _wrap()
        assert [] == asked


async def test_no_proxy_receives_the_credentials_of_an_instance(aws_settings: pytest.MonkeyPatch) -> None:
    """Botocore asks the server of metadata through HTTP_PROXY: it is refused, if the credentials come from there."""
    async with _recording() as (proxy, asked):
        for name in ("HTTP_PROXY", "http_proxy"):
            aws_settings.setenv(name, proxy)
        aws_settings.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
        with pytest.raises(SecretUnavailable):  # it has keys
            await _wrap()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            aws_settings.delenv(name)
        with pytest.raises(KmsRefused, match="this process has none"):  # the server of metadata is not to be asked
            await _wrap()
        aws_settings.delenv("AWS_EC2_METADATA_DISABLED")
        for mode, host in (("ipv4", "169.254.169.254"), ("ipv6", "[fd00:ec2::254]")):
            aws_settings.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode)
            for call in (_wrap, _prepare, partial(_prepare, role=ARN)):
                with pytest.raises(ConfigError, match=rf"HTTP_PROXY.*add {re.escape(host)} to NO_PROXY, or give"):
                    await call()
        assert [] == asked


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://kms.eu-central-1.amazonaws.com", True),
        ("https://elsewhere", True),
        ("http://localhost:4566", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.1:80/x", True),
        ("http://[::1]:1", True),
        ("http://127.0.0.1.example.com", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://user@127.0.0.1@elsewhere", False),
        ("http://[::1", False),
        ("ftp://127.0.0.1", False),
        ("kms.eu-central-1.amazonaws.com", False),
    ],
)
def test_only_https_and_loopback_are_protected(url: str, expected: bool) -> None:
    """An address is protected by https, or because nothing leaves this machine."""
    assert expected is is_protected(url)


def _account(**changes: object) -> dict[str, object]:
    return dict(json.loads(service_account())) | changes


_SUPPLIED = {"file": __file__}  # any text is a token
_EXTERNAL = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
}
_USER = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
_ELSEWHERE = f"{ELSEWHERE}/token"


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (lambda: _account(token_uri=_ELSEWHERE), True),
        (lambda: _account(token_uri=_ELSEWHERE.upper().replace("HTTP", "http")), True),
        (_account, False),
        (lambda: _account(token_uri="https://oauth2.googleapis.com/token"), False),
        (lambda: _EXTERNAL | {"credential_source": _SUPPLIED, "token_url": _ELSEWHERE}, True),
        (lambda: _EXTERNAL | {"credential_source": {"url": _ELSEWHERE}}, True),
        (
            lambda: {
                "type": "impersonated_service_account",
                "service_account_impersonation_url": (
                    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateAccessToken"
                ),
                "source_credentials": _account(token_uri=_ELSEWHERE),
            },
            True,
        ),
        (lambda: _USER | {"token_uri": "https://oauth2.googleapis.com/token"}, False),
    ],
)
async def test_tokens_of_google_are_not_asked_for_over_http(
    content: Callable[[], dict[str, object]], refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "google.json"
    file.write_text(json.dumps(content()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    await _google(refused, "GOOGLE_APPLICATION_CREDENTIALS names .token_uri")


@pytest.mark.parametrize("name", ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"])
async def test_a_server_of_metadata_is_beside_this_machine(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "google.json"
    file.write_bytes(service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    for host, refused in (
        ("metadata.of-the-tests.invalid", True),
        ("10.0.0.1:80", True),
        ("169.254.169.254", False),
        ("metadata.google.internal", False),
        ("127.0.0.1:8080", False),
    ):
        monkeypatch.setenv(name, host)
        await _google(refused, name)


async def test_no_proxy_receives_a_token_of_a_machine_of_google(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google's library asks the server of metadata through HTTP_PROXY, by its address and by its name: both refused."""
    settings.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    settings.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    async with _recording() as (proxy, asked), _recording(status=200) as (machine, found):
        for name in ("HTTP_PROXY", "http_proxy"):
            settings.setenv(name, proxy)
        for direct in (False, True):
            if direct:  # its address is asked by no proxy and answers, and then its name
                settings.setenv("GCE_METADATA_IP", machine.removeprefix("http://"))
                for name in ("NO_PROXY", "no_proxy"):
                    settings.setenv(name, "127.0.0.1")
            with pytest.raises(
                ConfigError,
                match=r"HTTP_PROXY.*add metadata\.google\.internal and 169\.254\.169\.254 to NO_PROXY, or give",
            ):
                async with gcp.opened(GCP_KEY, seconds=SECONDS):
                    pass
        assert [] == asked
        assert [f"{machine}/"] == found


async def _google(refused: bool, named: str) -> None:
    access, plain = GcpAccess(project="tests"), GcpAccess(project="tests", may_be_plain=True)
    if not refused:
        async with gcp.opened(GCP_KEY, seconds=SECONDS):
            return
    with pytest.raises(ConfigError, match=f"tokens of Google would be asked over http.*{named}"):
        async with gcp.opened(GCP_KEY, seconds=SECONDS):
            pass
    for given, passes in ((access, False), (plain, True)):
        providers = Providers(Access(gcp=given))
        if passes:
            with suppress(SecretUnavailable):  # some kinds ask for a token at once
                await providers.api(Provider.GCP).prepare()
        else:
            with pytest.raises(ConfigError, match=named):
                await providers.api(Provider.GCP).prepare()
        await providers.close()


@pytest.mark.parametrize(("where", "expected"), [("production", False), ("development", True), ("test", True)])
def test_only_outside_production_it_may_be_plain(where: str, expected: bool) -> None:
    more = {"SECRETS_PROVIDER": "aws", "SECRETS_ALSO_READ": "gcp", "AWS_REGION": REGION, "GOOGLE_CLOUD_PROJECT": "acme"}
    kms = {"SECRETS_KMS": str(AWS_KEY), "SECRETS_KMS_INSTALLATION": "production"}
    settings = load(environment(HOOKSEAL_ENV=where, **more, **kms))
    found = settings.secrets.access
    assert found.aws is not None
    assert found.gcp is not None
    assert settings.kms is not None
    assert [expected] * 3 == [each.may_be_plain for each in (found.aws, found.gcp, settings.kms)]


async def test_key_wrap_ends_with_78(aws_settings: pytest.MonkeyPatch) -> None:
    ended = await hookseal(
        *("key", "wrap"),
        **AWS_ENVIRONMENT,
        HOOKSEAL_ENV="production",
        SECRETS_PROVIDER="db",
        SECRETS_MASTER_KEY=MASTER_KEY_TEXT,
        SECRETS_KMS=str(AWS_KEY),
        SECRETS_KMS_INSTALLATION="production",
        AWS_ENDPOINT_URL_KMS=ELSEWHERE,
    )
    assert 78 == ended.code, ended.err
    assert "AWS_ENDPOINT_URL_KMS or AWS_ENDPOINT_URL" in ended.err


@asynccontextmanager
async def _recording(*, status: int = 500) -> AsyncIterator[tuple[str, list[str]]]:
    """Answer every request, also one to a proxy; yield the base URL, and the urls that were asked for."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(str(request.url))
        return web.Response(status=status, headers={"Metadata-Flavor": "Google"})

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()
