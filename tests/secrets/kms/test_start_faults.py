"""A start whose KMS fails: an unreachable one is asked again, for a bounded time; a refusal is final."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import pytest
import structlog

from hookseal.errors import HooksealError
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms import transit
from hookseal.secrets.kms.keys import PATIENCE_SECONDS, KeyWrapper
from hookseal.secrets.kms.wrapped import Kms, KmsKey, KmsSettings, WrappedKey
from tests.doubles.clock import FakeClock
from tests.doubles.faulty_proxy import AlteredAnswer, FaultyProxy, Refusal, Silence, aws_refusal, faulty_proxy
from tests.doubles.google_kms import GoogleKms, google_kms
from tests.doubles.openbao import ROOT_TOKEN, as_root, openbao, token_for
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.secrets.kms.sites import aws_site, gcp_opened, openbao_server, openbao_site

pytestmark = pytest.mark.req("SEC-25")

PLAIN = b"canary-of-a-master-key-32-bytes!"
OTHER_PLAIN = b"some other master key, 32 bytes!"
MASTER_KEY = MasterKey(SecretMaterial(PLAIN))
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


async def _require(
    scene: Scene, case: Case, shown: Callable[[], str], *, call_seconds: float = PATIENT_SECONDS
) -> None:
    """Fail unless a start ends as the case says, shows nothing, and, if the KMS is away, has asked it in time."""
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
    async with (
        aws_site(address, monkeypatch) as site,
        faulty_proxy(address) as proxy,
    ):
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
    """Each fault of AWS ends a start with its documented code and remedy; the next start gets the key."""
    async with _aws(aws_address, monkeypatch) as (proxy, scene):
        for case in AWS:
            with _failing(proxy, case[0]):
                await _require(scene, case, shown)
        for silence in (Silence.HANG, Silence.SLOW):
            with _failing(proxy, silence):
                await _require(scene, (silence, AWAY, "does not answer"), shown, call_seconds=SOON_SECONDS)
        assert MASTER_KEY.is_same_key(await scene.wrapper(FakeClock()).unwrap(scene.wrapped))


async def test_a_start_survives_or_refuses_each_fault_of_openbao(
    openbao_address: str, shown: Callable[[], str]
) -> None:
    """Each fault of OpenBao ends a start with its documented code and remedy; the next start gets the key."""
    async with _openbao(openbao_address) as (proxy, scene):
        for case in OPENBAO:
            with _failing(proxy, case[0]):
                await _require(scene, case, shown)
        for silence in (Silence.HANG, Silence.SLOW):
            with _failing(proxy, silence):
                await _require(scene, (silence, AWAY, "does not answer"), shown, call_seconds=SOON_SECONDS)
        assert MASTER_KEY.is_same_key(await scene.wrapper(FakeClock()).unwrap(scene.wrapped))


async def test_a_start_survives_or_refuses_each_fault_of_gcp(shown: Callable[[], str]) -> None:
    """Each fault of Google ends a start with its documented code and remedy."""
    async with _google() as (server, proxy, scene):
        for case in GCP:
            server.failing, server.details = case[0], "do not show me"
            await _require(scene, case, shown)
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


async def test_a_sealed_openbao_is_unavailable(shown: Callable[[], str]) -> None:
    """A real OpenBao that is sealed is away."""
    async with openbao() as server, openbao_site(server.url) as site, site.opened(site.one) as kms:
        scene = await _scene(kms, site.one)
        await as_root(server.url, "PUT", "sys/seal")
        await _require(scene, ("sealed", AWAY, "is sealed: unseal it"), shown)


async def test_a_revoked_token_is_refused(openbao_address: str, shown: Callable[[], str]) -> None:
    """A real token that was revoked, as one that has expired, is denied."""
    async with openbao_site(openbao_address) as site, site.opened(site.one) as kms:
        scene = await _scene(kms, site.one)
        token = await token_for(openbao_address, f'path "{site.one.part("mount")}/*" {{ capabilities = ["update"] }}')
        async with transit.opened(site.one, openbao_server(openbao_address, token), seconds=PATIENT_SECONDS) as worker:
            again = Scene(kms=worker, key=site.one, wrapped=scene.wrapped)
            assert MASTER_KEY.is_same_key(await again.wrapper(FakeClock()).unwrap(scene.wrapped))
            await as_root(openbao_address, "POST", "auth/token/revoke", {"token": token.reveal().decode()})
            await _require(again, ("expired", REFUSED, "replace the token if it has expired"), shown)
        assert token.reveal().decode() not in shown()
