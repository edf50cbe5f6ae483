"""Every KMS keeps the same laws, and a failure is transient or names who must do what. OpenBao is a real one."""

import asyncio
import base64
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import ConfigError, HooksealError, SecretUnavailable, Unavailable
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms import aws, transit
from hookseal.secrets.kms.gcp import GcpKms
from hookseal.secrets.kms.keys import PATIENCE_SECONDS, KeyWrapper, key_wrapper, opened
from hookseal.secrets.kms.wrapped import (
    Binding,
    Kms,
    KmsKey,
    KmsKind,
    KmsRefused,
    KmsSettings,
    WrappedKey,
    installation_name,
)
from hookseal.secrets.openbao.server import OpenBaoServer
from tests.doubles.aws import CREDENTIALS
from tests.doubles.clock import FakeClock
from tests.doubles.faulty_proxy import AlteredAnswer, FaultyProxy, Refusal, Silence, aws_refusal, faulty_proxy
from tests.doubles.google import service_account
from tests.doubles.google_kms import GoogleKms, google_kms
from tests.doubles.openbao import ROOT_TOKEN, as_root, token_for
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.secrets.kms_sites import (
    SECONDS,
    Site,
    aws_site,
    failing_gcp,
    gcp_opened,
    gcp_site,
    openbao_server,
    openbao_site,
)
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-25")

PLAIN = b"canary-of-a-master-key-32-bytes!"
MASTER_KEY = MasterKey(SecretMaterial(PLAIN))
BINDING = Binding(installation="production", key_id=MASTER_KEY.key_id)
ARN = "aws:arn:aws:kms:eu-central-1:123456789012:key/28c19c39-9cff-4abf-be49-4da6e251e19f"
CRYPTO_KEY = "gcp:projects/acme/locations/europe/keyRings/hookseal/cryptoKeys/master"


@pytest.mark.parametrize(
    "text",
    [
        ARN,
        "aws:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-28c19c399cff4abfbe494da6e251e19f",
        "aws:arn:aws:kms:eu-central-1:123456789012:alias/team/hookseal",
        CRYPTO_KEY,
        "gcp:projects/example.com:acme/locations/global/keyRings/a/cryptoKeys/b",
        "openbao:transit/hookseal",
        "openbao:team/transit/hookseal",
    ],
)
def test_each_spelling_of_a_kms_key_is_kept(text: str) -> None:
    assert text == str(KmsKey.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "aws:",
            "azure:key",
            "transit/hookseal",
            "openbao:hookseal",
            "openbao:../a",
            "openbao:a/..",
            "openbao:a/./b",
            "openbao:a//b",
            "openbao:a/b?c",
            "OPENBAO:a/b",
        ),
        *(f"{ARN} ", f"{ARN}\n", ARN.replace("kms", "s3"), "aws:28c19c39-9cff-4abf-be49-4da6e251e19f", "aws:alias/x"),
        *(f"{CRYPTO_KEY}/cryptoKeyVersions/1", CRYPTO_KEY.replace("keyRings/hookseal/", "")),
    ],
)
def test_another_text_than_a_kms_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a key of a KMS"):
        KmsKey.parse(text)


def test_a_kms_key_has_the_parts_its_client_needs() -> None:
    assert "eu-central-1" == KmsKey.parse(ARN).part("region")
    nested = KmsKey.parse("openbao:team/transit/hookseal")
    assert ("team/transit", "hookseal") == (nested.part("mount"), nested.part("key"))


@given(st.binary(min_size=12, max_size=600), st.binary(min_size=8, max_size=8))
def test_a_wrapped_key_is_read_back_from_its_text(ciphertext: bytes, key_id: bytes) -> None:
    made = WrappedKey(key_id=key_id.hex(), ciphertext=ciphertext)
    assert made == WrappedKey.parse(str(made))
    assert not set(str(made)) & set(" ,\n=+/")


@pytest.mark.parametrize("text", ["", "v1.0123456789abcdef", f"v2.{'0' * 16}.{'A' * 16}", f"v1.{'0' * 16}.{'A' * 17}"])
def test_another_text_than_a_wrapped_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a wrapped master key"):
        WrappedKey.parse(text)


def test_different_bindings_have_different_encodings() -> None:
    one, other = (Binding(installation=name, key_id="0" * 16) for name in ("a", "b"))
    assert (b"hookseal-master-key/a/0000000000000000", True) == (one.encoded, one.pairs != other.pairs)
    for text in ("", "a/b", "a b", ".a", "a" * 64):
        with pytest.raises(ValueError, match="not the name of an installation"):
            installation_name(text)


# An unreachable KMS is asked again for a bounded time; a refusal is final at once.

SETTINGS = KmsSettings(key=KmsKey.parse("openbao:transit/hookseal"), installation="production")
WRAPPED = WrappedKey(key_id=MASTER_KEY.key_id, ciphertext=b"wrapped by a KMS")


class Scripted:
    """A KMS that fails as a test asks, and then unwraps to the key."""

    def __init__(self, *failures: HooksealError) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        return (await self.unwrap(b"", binding)).reveal()[:16]

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return MASTER_KEY.material


async def test_a_recovered_kms_is_used() -> None:
    clock, kms = FakeClock(), Scripted(*[SecretUnavailable("away")] * 5)
    found = await KeyWrapper(kms, SETTINGS, clock=clock).unwrap(WRAPPED)

    assert MASTER_KEY.is_same_key(found)
    assert [0.25, 0.5, 1.0, 2.0, 2.0] == clock.slept


async def test_an_unreachable_kms_ends_the_start() -> None:
    clock, kms = FakeClock(), Scripted(*[SecretUnavailable("openbao is sealed")] * 100)
    with pytest.raises(Unavailable) as ended:
        await KeyWrapper(kms, SETTINGS, clock=clock).unwrap(WRAPPED)

    assert 69 == ended.value.exit_code
    assert str(ended.value).startswith("openbao is sealed; openbao was asked for 12 seconds")
    assert 10.0 < clock.elapsed <= PATIENCE_SECONDS


async def test_a_refusal_is_final() -> None:
    kms = Scripted(KmsRefused("denied"))
    with pytest.raises(KmsRefused) as ended:
        await KeyWrapper(kms, SETTINGS, clock=FakeClock()).unwrap(WRAPPED)

    assert (78, 1) == (ended.value.exit_code, kms.calls)


async def test_a_hanging_kms_ends_in_time() -> None:
    server = OpenBaoServer(address="http://127.0.0.1:1", credentials=SecretMaterial(b"t"))
    settings = KmsSettings(key=SETTINGS.key, installation="production", openbao=server)
    with pytest.raises(Unavailable, match="openbao:transit/hookseal does not answer"):
        async with key_wrapper(settings, clock=FakeClock(), seconds=0.1):
            await asyncio.Event().wait()


# Every KMS keeps the same laws: AWS on moto, Google Cloud on a server of its protocol, OpenBao on a real one.


@pytest.fixture(params=list(KmsKind))
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AbstractAsyncContextManager[Site]:
    """Return each KMS, to be opened; its server must start outside of the event loop of a test."""
    match request.param:
        case KmsKind.AWS:
            return aws_site(request.getfixturevalue("aws_address"), monkeypatch)
        case KmsKind.GCP:
            return gcp_site()
        case _:
            return openbao_site(request.getfixturevalue("openbao_address"))


@pytest.fixture
async def site(made: AbstractAsyncContextManager[Site]) -> AsyncIterator[Site]:
    async with made as found:
        yield found


def wrapper(kms: Kms, key: KmsKey, installation: str = "production") -> KeyWrapper:
    return KeyWrapper(kms, KmsSettings(key=key, installation=installation), clock=FakeClock())


async def test_a_wrapped_key_is_unwrapped_unchanged(site: Site) -> None:
    async with site.opened(site.one) as kms:
        text = str(await wrapper(kms, site.one).wrap(MASTER_KEY))
        await site.rotate()
        found = await wrapper(kms, site.one).unwrap(WrappedKey.parse(text))
        anew = await wrapper(kms, site.one).wrap(MASTER_KEY)

    assert MASTER_KEY.is_same_key(found)
    assert text != str(anew)
    assert PLAIN not in WrappedKey.parse(text).ciphertext
    assert base64.urlsafe_b64encode(PLAIN).decode()[:20] not in text


async def test_a_wrapped_key_opens_only_in_its_binding(site: Site) -> None:
    async with site.opened(site.one) as kms, site.opened(site.another) as other:
        made = await wrapper(kms, site.one).wrap(MASTER_KEY)
        for moved in (replace(BINDING, installation="staging"), replace(BINDING, key_id="0" * 16)):
            with pytest.raises(KmsRefused, match="SECRETS_KMS_INSTALLATION"):
                await kms.unwrap(made.ciphertext, moved)
        with pytest.raises(KmsRefused):
            await other.unwrap(made.ciphertext, BINDING)
        with pytest.raises(KmsRefused):
            await kms.unwrap(made.ciphertext[:-1] + bytes([made.ciphertext[-1] ^ 1]), BINDING)
        with pytest.raises(KmsRefused):
            await kms.unwrap(b"of another kind of KMS", BINDING)


async def test_wrapped_content_that_is_not_the_key_is_refused(site: Site) -> None:
    async with site.opened(site.one) as kms:
        for plain in (bytes(32), b"short"):
            made = WrappedKey(key_id=BINDING.key_id, ciphertext=await kms.wrap(SecretMaterial(plain), BINDING))
            with pytest.raises(KmsRefused):
                await wrapper(kms, site.one).unwrap(made)


async def test_a_missing_kms_key_is_a_configuration_error(site: Site) -> None:
    async with site.opened(site.one) as kms, site.opened(site.missing) as missing:
        made = await kms.wrap(MASTER_KEY.material, BINDING)
        with pytest.raises(ConfigError) as refused:
            await missing.unwrap(made, BINDING)

    assert 78 == refused.value.exit_code
    assert str(site.missing) in str(refused.value)


async def test_an_unreachable_kms_is_transient(site: Site) -> None:
    async with site.unreachable(site.one) as kms:
        with pytest.raises(SecretUnavailable, match="does not answer"):
            await kms.unwrap(b"x" * 60, BINDING)


AWS_KEY, GCP_KEY = KmsKey.parse(ARN), KmsKey.parse(CRYPTO_KEY)


# Failures of each KMS: transient, or an error that names who must do what.


async def test_missing_aws_credentials_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    async with aws.opened(AWS_KEY, seconds=SECONDS) as kms:
        with pytest.raises(KmsRefused, match="AWS_ACCESS_KEY_ID"):
            await kms.wrap(MASTER_KEY.material, BINDING)


async def test_an_unavailable_source_of_credentials_is_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with aws.opened(AWS_KEY, seconds=SECONDS) as kms:
        with pytest.raises(SecretUnavailable, match="what gives this process its credentials of AWS fails"):
            await kms.unwrap(b"x" * 40, BINDING)


async def test_a_missing_profile_or_file_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-another-machine")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    for key, named in ((AWS_KEY, "AWS_PROFILE"), (GCP_KEY, "GOOGLE_APPLICATION_CREDENTIALS")):
        with pytest.raises(KmsRefused, match=named):
            async with opened(KmsSettings(key=key, installation="production")) as kms:
                await kms.wrap(MASTER_KEY.material, BINDING)


@pytest.mark.timeout(20)
async def test_slow_gcp_credentials_do_not_block_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_gcp_data_with_a_wrong_checksum_is_not_used() -> None:
    async with failing_gcp(GCP_KEY) as (server, kms):
        server.flips_a_bit = True
        with pytest.raises(SecretUnavailable, match="checksum"):
            await kms.wrap(MASTER_KEY.material, BINDING)


async def test_one_right_of_openbao_suffices_for_a_worker(openbao_address: str) -> None:
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        mount = site.one.part("mount")
        made = await kms.wrap(MASTER_KEY.material, BINDING)
        token = await token_for(openbao_address, f'path "{mount}/decrypt/one" {{ capabilities = ["update"] }}')
        async with transit.opened(site.one, openbao_server(openbao_address, token), seconds=SECONDS) as worker:
            assert MASTER_KEY.material == await worker.unwrap(made, BINDING)
            with pytest.raises(KmsRefused, match=f"denies this token the request to {mount}/encrypt/one"):
                await worker.wrap(MASTER_KEY.material, BINDING)
        await site.rotate()
        await as_root(openbao_address, "POST", f"{mount}/keys/one/config", {"min_decryption_version": 2})
        with pytest.raises(KmsRefused, match="lower its min_decryption_version"):
            await kms.unwrap(made, BINDING)
        await as_root(openbao_address, "POST", f"{mount}/keys/rsa", {"type": "rsa-2048"})
        async with site.opened(KmsKey.parse(f"openbao:{mount}/rsa")) as rsa:
            with pytest.raises(KmsRefused, match="aes256-gcm96"):
                await rsa.wrap(MASTER_KEY.material, BINDING)


async def test_openbao_needs_an_address() -> None:
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
    async with failing_gcp(GCP_KEY) as (_, kms):
        assert MASTER_KEY.material == await kms.unwrap(await kms.wrap(MASTER_KEY.material, BINDING), BINDING)
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        assert MASTER_KEY.material == await kms.unwrap(await kms.wrap(MASTER_KEY.material, BINDING), BINDING)
    async with aws_site(aws_address, monkeypatch) as site, site.opened(site.one) as kms:
        assert MASTER_KEY.material == await kms.unwrap(await kms.wrap(MASTER_KEY.material, BINDING), BINDING)

    shown = "\n".join(f"{record.name} {record.getMessage()} {record.__dict__}" for record in debugging.records)
    assert [] == [text for text in (PLAIN.decode(), base64.b64encode(PLAIN).decode(), PLAIN.hex()) if text in shown]


# A start whose KMS fails: an unreachable one is asked again, for a bounded time; a refusal is final.

OTHER_PLAIN = b"some other master key, 32 bytes!"
PATIENT_SECONDS = 60.0  # for a call on a busy machine
SOON_SECONDS = 0.05  # for a call that hangs

Case: TypeAlias = tuple[Any, int, str]
CODE = grpc.StatusCode
AWAY, REFUSED = 69, 78
AGAIN = "start again"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A KMS, and the key that it wrapped when all was well."""

    kms: Kms
    key: KmsKey
    wrapped: WrappedKey

    def wrapper(self, clock: FakeClock, call_seconds: float = PATIENT_SECONDS) -> KeyWrapper:
        """Return the wrapper that a start uses."""
        return _wrapper(self.kms, self.key, clock, call_seconds)


def _wrapper(kms: Kms, key: KmsKey, clock: FakeClock, call_seconds: float = PATIENT_SECONDS) -> KeyWrapper:
    settings = KmsSettings(key=key, installation="production")
    return KeyWrapper(kms, settings, clock=clock, call_seconds=call_seconds)


async def _scene(kms: Kms, key: KmsKey) -> Scene:
    return Scene(kms=kms, key=key, wrapped=await _wrapper(kms, key, FakeClock()).wrap(MASTER_KEY))


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Yield a function that returns everything that was logged."""
    with caplog.at_level("INFO"), structlog.testing.capture_logs() as entries:
        yield lambda: repr(entries) + "".join(repr(vars(record)) for record in caplog.records)


async def _require(scene: Scene, case: Case, shown: Callable[[], str], *, call_seconds: float = PATIENT_SECONDS) -> int:
    """Fail unless a start ends as the case says, shows nothing, and, if the KMS is away, has asked it in time.

    Return how often it has asked.
    """
    fault, code, message = case
    clock = FakeClock()
    with pytest.raises(HooksealError) as ended:
        await scene.wrapper(clock, call_seconds).unwrap(scene.wrapped)
    text = str(ended.value)
    assert (code, True) == (ended.value.exit_code, message in text), f"{fault}: {text}"
    if code == AWAY:
        assert AGAIN in text
        assert PATIENCE_SECONDS - 2.0 <= clock.elapsed <= PATIENCE_SECONDS
    else:
        assert [] == clock.slept, f"{fault} was repeated"
    _hides(scene, text + shown())
    return len(clock.slept) + 1


def _hides(scene: Scene, text: str) -> None:
    value = [PLAIN, OTHER_PLAIN, scene.wrapped.ciphertext]
    hidden = [form for each in value for form in (each.decode("latin-1"), base64.b64encode(each).decode(), each.hex())]
    hidden += [str(scene.wrapped), ROOT_TOKEN, "do not show me"]
    assert [] == [each for each in hidden if each in text]


def _altered(name: str, value: object) -> AlteredAnswer:
    """Return an answer in which one value is another one; None removes it."""

    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        place = answer.get("data", answer)
        if name in place:
            place[name] = value
        return json.dumps(answer).encode()

    return AlteredAnswer(change=change)


OTHER = base64.b64encode(OTHER_PLAIN).decode()
HTML, NOTHING, ANOTHER_PAGE = (Refusal(status=200, body=body) for body in (b"<html>", b"", b'{"data": [1]}'))

AWS: list[Case] = [
    (aws_refusal("AccessDeniedException"), REFUSED, "give this identity kms:Decrypt"),
    (aws_refusal("NotFoundException"), REFUSED, "correct SECRETS_KMS"),
    (aws_refusal("DisabledException"), REFUSED, "enable the key"),
    (aws_refusal("KMSInvalidStateException"), REFUSED, "cancel the deletion of the key"),
    (aws_refusal("IncorrectKeyException"), REFUSED, "SECRETS_KMS_INSTALLATION"),
    (aws_refusal("InvalidCiphertextException"), REFUSED, "SECRETS_KMS_INSTALLATION"),
    (aws_refusal("InvalidSignatureException", 403), REFUSED, "the clock of this machine"),
    (aws_refusal("RequestExpired"), REFUSED, "the clock of this machine"),
    (aws_refusal("ExpiredTokenException", 403), REFUSED, "renew the credentials"),
    (aws_refusal("ExpiredToken", 403), REFUSED, "renew the credentials"),
    (aws_refusal("UnrecognizedClientException"), REFUSED, "correct the credentials"),
    (_altered("Plaintext", OTHER), REFUSED, "SECRETS_KMS_INSTALLATION"),
    (Refusal(status=403, body=b"<html>", content_type="text/html"), REFUSED, "a proxy"),
    (Refusal(status=404, body=b"<html>", content_type="text/html"), REFUSED, "a proxy"),
    (Refusal(status=429), AWAY, "cannot answer at the moment (429)"),
    (aws_refusal("ThrottlingException"), AWAY, "cannot answer at the moment (ThrottlingException)"),
    (Refusal(status=500), AWAY, "cannot answer at the moment (500)"),
    (aws_refusal("KMSInternalException", 500), AWAY, "cannot answer at the moment"),
    (aws_refusal("ServiceUnavailable", 503), AWAY, "cannot answer at the moment"),
    (Silence.RESET, AWAY, "does not answer"),
    (HTML, AWAY, "an answer that cannot be read"),
    (NOTHING, AWAY, "an answer that cannot be read"),
    (Refusal(status=200, body=b"[1]"), AWAY, "an answer that cannot be read"),
    (Refusal(status=400, body=b"[1]"), AWAY, "an answer that cannot be read"),
    (_altered("Plaintext", None), AWAY, "an answer that cannot be read"),
    (_altered("Plaintext", 5), AWAY, "an answer that cannot be read"),
]
OPENBAO: list[Case] = [
    (Refusal(status=403, body=b'{"errors":["do not show me"]}'), REFUSED, "give its policy that right"),
    (Refusal(status=404, body=b'{"errors":[]}'), REFUSED, "create it, or correct SECRETS_KMS"),
    (Refusal(status=404, body=b'{"errors":["no handler for route"]}'), REFUSED, "bao secrets enable -path="),
    (_altered("plaintext", OTHER), REFUSED, "SECRETS_KMS_INSTALLATION"),
    (Refusal(status=429, body=b'{"errors":["do not show me"]}'), AWAY, "limits requests"),
    (Refusal(status=500, body=b'{"errors":["do not show me"]}'), AWAY, "fails"),
    (Refusal(status=503, body=b'{"errors":["Vault is sealed"]}'), AWAY, "is sealed: unseal it"),
    (Refusal(status=503, body=b"<html>"), AWAY, "answers 503: OpenBao is down or sealed"),
    (Silence.RESET, AWAY, "does not answer"),
    (HTML, AWAY, "is not OpenBao"),
    (NOTHING, AWAY, "cannot be read"),
    (ANOTHER_PAGE, AWAY, "cannot be read"),
    (_altered("plaintext", None), AWAY, "cannot be read"),
    (_altered("plaintext", "not base64!"), AWAY, "cannot be read"),
]
GCP: list[Case] = [
    (CODE.PERMISSION_DENIED, REFUSED, "roles/cloudkms.cryptoKeyDecrypter"),
    (CODE.UNAUTHENTICATED, REFUSED, "the clock of this machine"),
    (CODE.NOT_FOUND, REFUSED, "correct SECRETS_KMS"),
    (CODE.FAILED_PRECONDITION, REFUSED, "enable the version"),
    (CODE.INVALID_ARGUMENT, REFUSED, "SECRETS_KMS_INSTALLATION"),
    (CODE.RESOURCE_EXHAUSTED, AWAY, "raise the quota of Cloud KMS"),
    (CODE.UNAVAILABLE, AWAY, "does not answer"),
    (CODE.INTERNAL, AWAY, "cannot answer at the moment (InternalServerError)"),
    (CODE.DEADLINE_EXCEEDED, AWAY, "does not answer"),
    (CODE.ABORTED, AWAY, "cannot answer at the moment (Aborted)"),
]


@asynccontextmanager
async def _aws(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FaultyProxy, Scene]]:
    """Give an AWS behind a proxy."""
    async with aws_site(address, monkeypatch) as site, faulty_proxy(address) as proxy:
        opened = site.opened(site.one)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", proxy.url)
        async with opened as kms:
            yield proxy, await _scene(kms, site.one)


@asynccontextmanager
async def _openbao(address: str) -> AsyncIterator[tuple[FaultyProxy, Scene]]:
    """Give an OpenBao behind a proxy."""
    async with (
        openbao_site(address) as site,
        faulty_proxy(address) as proxy,
        transit.opened(site.one, openbao_server(proxy.url), seconds=PATIENT_SECONDS) as kms,
    ):
        yield proxy, await _scene(kms, site.one)


@asynccontextmanager
async def _google() -> AsyncIterator[tuple[GoogleKms, TcpProxy, Scene]]:
    """Give a KMS of Google behind a proxy."""
    key = KmsKey.parse("gcp:projects/acme/locations/europe-west1/keyRings/hookseal/cryptoKeys/one")
    async with google_kms() as (server, address), tcp_proxy(int(address.rpartition(":")[2])) as proxy:
        server.rotate(key.name)
        async with gcp_opened(key, f"127.0.0.1:{proxy.port}") as kms:
            yield server, proxy, await _scene(kms, key)


@contextmanager
def _failing(proxy: FaultyProxy, fault: Any) -> Iterator[None]:
    proxy.fault = fault
    try:
        yield
    finally:
        proxy.fault = None


async def test_a_start_survives_or_refuses_each_fault_of_aws(
    aws_address: str, monkeypatch: pytest.MonkeyPatch, shown: Callable[[], str]
) -> None:
    async with _aws(aws_address, monkeypatch) as (proxy, scene):
        for case in AWS:
            before = proxy.requests
            with _failing(proxy, case[0]):
                asked = await _require(scene, case, shown)
            assert asked == proxy.requests - before, f"{case[0]}: the client of AWS repeats by itself"
        for silence in (Silence.HANG, Silence.SLOW):
            with _failing(proxy, silence):
                await _require(scene, (silence, AWAY, "does not answer"), shown, call_seconds=SOON_SECONDS)
        assert MASTER_KEY.is_same_key(await scene.wrapper(FakeClock()).unwrap(scene.wrapped))


async def test_a_start_survives_or_refuses_each_fault_of_openbao(
    openbao_address: str, shown: Callable[[], str]
) -> None:
    async with _openbao(openbao_address) as (proxy, scene):
        for case in OPENBAO:
            with _failing(proxy, case[0]):
                await _require(scene, case, shown)
        for silence in (Silence.HANG, Silence.SLOW):
            with _failing(proxy, silence):
                await _require(scene, (silence, AWAY, "does not answer"), shown, call_seconds=SOON_SECONDS)
        assert MASTER_KEY.is_same_key(await scene.wrapper(FakeClock()).unwrap(scene.wrapped))


async def test_a_start_survives_or_refuses_each_fault_of_gcp(shown: Callable[[], str]) -> None:
    async with _google() as (server, proxy, scene):
        for case in GCP:
            server.failing, server.details, server.calls = case[0], "do not show me", 0
            asked = await _require(scene, case, shown)
            assert asked == server.calls, f"{case[0]}: the client of Google repeats by itself"
        server.failing, server.details = CODE.UNAVAILABLE, "Getting metadata failed: ('invalid_grant: Invalid JWT')"
        await _require(scene, ("a clock that is an hour off", REFUSED, "correct the clock of this machine"), shown)
        server.failing = None
        server.flips_a_bit = True
        await _require(scene, ("checksum", AWAY, "checksum"), shown)
        server.flips_a_bit = False
        server.opens_to = OTHER_PLAIN
        await _require(scene, ("another key", REFUSED, "SECRETS_KMS_INSTALLATION"), shown)
        server.opens_to = None
        assert MASTER_KEY.is_same_key(await scene.wrapper(FakeClock()).unwrap(scene.wrapped))
        proxy.pause()
        await _require(scene, ("hang", AWAY, "does not answer"), shown, call_seconds=SOON_SECONDS)
        proxy.close()
        await _require(scene, ("reset", AWAY, "does not answer"), shown)


async def test_a_revoked_token_is_refused(openbao_address: str, shown: Callable[[], str]) -> None:
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        scene = await _scene(kms, site.one)
        token = await token_for(openbao_address, f'path "{site.one.part("mount")}/*" {{ capabilities = ["update"] }}')
        async with transit.opened(site.one, openbao_server(openbao_address, token), seconds=PATIENT_SECONDS) as worker:
            again = Scene(kms=worker, key=site.one, wrapped=scene.wrapped)
            assert MASTER_KEY.is_same_key(await again.wrapper(FakeClock()).unwrap(scene.wrapped))
            await as_root(openbao_address, "POST", "auth/token/revoke", {"token": token.reveal().decode()})
            await _require(again, ("expired", REFUSED, "replace the token if it has expired"), shown)
        assert token.reveal().decode() not in shown()
