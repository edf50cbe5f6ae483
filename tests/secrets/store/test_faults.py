"""Faults of each provider: an error that names who must act, or a transient one, within the time of an attempt."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import pytest

from hookseal.errors import SecretDenied, SecretNotFound, SecretTampered, SecretUnavailable, with_advice
from hookseal.ground.clock import SystemClock
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store.port import CALL_SECONDS, ProviderApi
from hookseal.secrets.store.several import Providers
from tests.doubles.faulty_proxy import AlteredAnswer, FaultyProxy, Refusal, Silence, aws_refusal, faulty_proxy
from tests.doubles.google import GoogleSecrets
from tests.doubles.openbao import ROOT_TOKEN
from tests.doubles.providers import OWNER, PATIENCE_SECONDS, aws_access, external, google_api, openbao_access, prefix
from tests.secrets.doubles import reader_on
from tests.secrets.samples import NAME, SECRET, TENANT

SIGNING = Purpose.WEBHOOK_SIGNING
CODE = grpc.StatusCode


def _of_version(version: object) -> AlteredAnswer:
    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        if "VersionId" in answer:
            answer["VersionId"] = version
        else:
            answer["data"]["metadata"]["version"] = version
        return json.dumps(answer).encode()

    return AlteredAnswer(change=change)


GARBAGE = AlteredAnswer(change=lambda _: b"<html>")
LIST = Refusal(status=200, body=b"[1]")
AWS: list[tuple[Any, type[Exception], str]] = [
    (aws_refusal("AccessDeniedException"), SecretDenied, "grant its role or user secretsmanager:GetSecretValue"),
    (aws_refusal("AccessDeniedException", 403), SecretDenied, "grant its role or user"),
    (aws_refusal("DecryptionFailure"), SecretDenied, "enable the KMS key"),
    (aws_refusal("ExpiredTokenException"), SecretDenied, "have expired: give it new ones"),
    (aws_refusal("InvalidSignatureException"), SecretDenied, "set the clock of this machine"),
    (aws_refusal("UnrecognizedClientException"), SecretDenied, "does not know the credentials"),
    (aws_refusal("ResourceNotFoundException"), SecretNotFound, "somebody removed it"),
    (aws_refusal("InvalidRequestException"), SecretNotFound, "somebody removed it"),
    (aws_refusal("SomethingNewException"), SecretDenied, "look the call up in CloudTrail"),
    (Refusal(status=404), SecretDenied, "refused .404., and not by AWS"),
    (aws_refusal("ThrottlingException"), SecretUnavailable, "limits .*raise the quota of GetSecretValue"),
    (Refusal(status=429), SecretUnavailable, "limits the requests of this account in this region .429"),
    (Refusal(status=500), SecretUnavailable, "AWS Secrets Manager fails .500"),
    (aws_refusal("InternalServiceError", 503), SecretUnavailable, "fails .InternalServiceError"),
    (GARBAGE, SecretUnavailable, "is not AWS: correct AWS_ENDPOINT_URL"),
    (LIST, SecretUnavailable, "is not AWS"),
    (Refusal(status=400, body=b"[1]"), SecretUnavailable, "is not AWS"),
    (Silence.RESET, SecretUnavailable, "does not answer"),
    (Silence.CUT, SecretUnavailable, "does not answer"),
    (_of_version("0f6f4f0b-7a11-4d0c-9d3b-6e2a0c9e52a3"), SecretTampered, "another version than was asked for"),
]
OPENBAO: list[tuple[Any, type[Exception], str]] = [
    (Refusal(status=403, body=b'{"errors":["permission denied"]}'), SecretDenied, "give its policy that right"),
    (Refusal(status=404, body=b'{"errors":[]}'), SecretNotFound, "somebody removed it"),
    (
        Refusal(status=429, body=b'{"errors":["rate limit"]}'),
        SecretUnavailable,
        "limits requests: its administrator must raise the rate limit quota",
    ),
    (Refusal(status=500, body=b'{"errors":["internal"]}'), SecretUnavailable, "fails"),
    (Refusal(status=503, body=b'{"errors":["Vault is sealed"]}'), SecretUnavailable, "is sealed: unseal it"),
    (
        Refusal(status=503, body=b'{"errors":["node not active but active node not found"]}'),
        SecretUnavailable,
        "standby",
    ),
    (GARBAGE, SecretUnavailable, r"what answers at http://127\.0\.0\.1:\d+ is not OpenBao"),
    (LIST, SecretUnavailable, "is not OpenBao"),
    (Refusal(status=200, body=b'{"data": [1], "auth": [1]}'), SecretDenied, "no engine KV, version 2, at secret"),
    (Refusal(status=404, body=b'{"errors": ["no handler for route"]}'), SecretDenied, "correct BAO_MOUNT"),
    (Silence.RESET, SecretUnavailable, "does not answer"),
    (Silence.CUT, SecretUnavailable, "does not answer"),
    (_of_version(2), SecretTampered, "another version than was asked for"),
]
GCP = [
    (CODE.PERMISSION_DENIED, SecretDenied, "grant its service account secretmanager.versions.access"),
    (CODE.UNAUTHENTICATED, SecretDenied, "set the clock of this machine"),
    (CODE.NOT_FOUND, SecretNotFound, "somebody removed it"),
    (CODE.FAILED_PRECONDITION, SecretDenied, "is disabled or destroyed: enable it"),
    (CODE.INVALID_ARGUMENT, SecretDenied, "look the call up in the audit logs"),
    (CODE.RESOURCE_EXHAUSTED, SecretUnavailable, "limits the requests of this project .*raise the quota"),
    (CODE.UNAVAILABLE, SecretUnavailable, "does not answer"),
    (CODE.ABORTED, SecretUnavailable, "another process changes the secret"),
    (CODE.CANCELLED, SecretUnavailable, "does not answer"),
    (CODE.INTERNAL, SecretUnavailable, "Google Secret Manager fails .InternalServerError"),
    (CODE.UNKNOWN, SecretUnavailable, "fails .Unknown"),
    (CODE.DEADLINE_EXCEEDED, SecretUnavailable, "does not answer"),
]


def _ref(api: ProviderApi) -> SecretRef:
    return SecretRef(provider=api.provider, tenant=TENANT, name=NAME, version=1)


@asynccontextmanager
async def _behind(
    provider: Provider, url: str, monkeypatch: pytest.MonkeyPatch, *, call_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[tuple[FaultyProxy, ProviderApi]]:
    """Give the interface of the provider, with one version written, behind a proxy."""
    async with faulty_proxy(url) as proxy:
        if provider is Provider.AWS:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        access = aws_access(prefix()) if provider is Provider.AWS else openbao_access(proxy.url, prefix())
        providers = Providers(replace(access, call_seconds=call_seconds))
        api = providers.api(provider)
        try:
            await api.write(_ref(api), b"payload", owner=OWNER, is_first=True)
            yield proxy, api
        finally:
            await providers.close()


async def _require(
    api: ProviderApi, fails: Any, error: type[Exception], pattern: str, repair: Callable[[], None]
) -> None:
    with pytest.raises(error) as caught:
        await api.read(_ref(api))
    message = with_advice(caught.value)
    assert re.search(pattern, message), f"{fails}: {message}"
    for hidden in ("do not show me", ROOT_TOKEN, "payload"):
        assert hidden not in message
    repair()
    assert b"payload" == await api.read(_ref(api))


@pytest.mark.req("SEC-16")
@pytest.mark.req("SEC-07", part="aws")
async def test_each_refusal_of_aws_names_the_remedy(aws_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _behind(Provider.AWS, aws_url, monkeypatch) as (proxy, api):
        for fault, error, pattern in AWS:
            proxy.fault = fault
            await _require(api, fault, error, pattern, lambda: setattr(proxy, "fault", None))


@pytest.mark.req("SEC-18")
@pytest.mark.req("SEC-07", part="openbao")
async def test_each_refusal_of_openbao_names_the_remedy(openbao_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _behind(Provider.OPENBAO, openbao_address, monkeypatch) as (proxy, api):
        for fault, error, pattern in OPENBAO:
            proxy.fault = fault
            await _require(api, fault, error, pattern, lambda: setattr(proxy, "fault", None))


@pytest.mark.req("SEC-17")
@pytest.mark.req("SEC-07", part="gcp")
async def test_each_refusal_of_gcp_names_the_remedy() -> None:
    async with google_api() as (kept, api):
        await api.write(_ref(api), b"payload", owner=OWNER, is_first=True)
        for code, error, pattern in GCP:
            asked = len(kept.calls)

            async def fails(_: str, context: Any, code: grpc.StatusCode = code) -> None:
                await context.abort(code, "do not show me")

            kept.fault = fails
            await _require(api, code, error, pattern, lambda: setattr(kept, "fault", None))
            assert asked + 2 == len(kept.calls), "the client must not repeat by itself"


@pytest.mark.req("SEC-17")
async def test_an_untrustworthy_answer_of_gcp_is_not_used() -> None:
    async with google_api() as (kept, api):
        await api.write(_ref(api), b"payload", owner=OWNER, is_first=True)

        def wrong_checksum(answer: Any) -> None:
            answer.payload.data = b"PAYLOAD"

        def other_version(answer: Any) -> None:
            answer.name = answer.name.removesuffix("1") + "2"

        def other_secret(answer: Any) -> None:
            answer.name = answer.name.replace(NAME, "other")

        for alter_answer, error, pattern in (
            (wrong_checksum, SecretUnavailable, "checksum"),
            (other_version, SecretTampered, "another version"),
            (other_secret, SecretTampered, "another version"),
        ):
            kept.alter_answer = alter_answer
            await _require(api, alter_answer, error, pattern, lambda: setattr(kept, "alter_answer", None))


async def _hangs(_: str, __: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.req("SEC-07", part="providers")
async def test_a_hanging_provider_fails_within_two_seconds(
    aws_url: str, openbao_address: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()

    async def unavailable(api: ProviderApi, silence: Silence, repair: Callable[[], None]) -> None:
        store = external(pool, api)
        reader = reader_on(store, clock)
        put = await store.put(TENANT, f"{api.provider}-{silence}", SECRET, purpose=SIGNING)
        began_at = clock.monotonic()
        await begin_fault[api]()
        with pytest.raises(SecretUnavailable, match="gave no answer within the 2 s"):
            await reader.read([put], purpose=SIGNING)
        assert clock.monotonic() - began_at < 4.0  # 2 s, on a busy machine
        repair()
        assert (SECRET,) == await reader.read([put], purpose=SIGNING)

    begin_fault: dict[ProviderApi, Callable[[], Awaitable[None]]] = {}
    async with (
        _behind(Provider.AWS, aws_url, monkeypatch, call_seconds=CALL_SECONDS) as (to_aws, aws),
        _behind(Provider.OPENBAO, openbao_address, monkeypatch, call_seconds=CALL_SECONDS) as (to_openbao, openbao),
        google_api() as (kept, google),
    ):

        def faulty(of: FaultyProxy | GoogleSecrets, fault: Any) -> Callable[[], Awaitable[None]]:
            async def begin() -> None:
                of.fault = fault

            return begin

        for silence in (Silence.HANG, Silence.SLOW):
            begin_fault.update({aws: faulty(to_aws, silence), openbao: faulty(to_openbao, silence)})
            begin_fault[google] = faulty(kept, _hangs)
            await asyncio.gather(
                unavailable(aws, silence, lambda: setattr(to_aws, "fault", None)),
                unavailable(openbao, silence, lambda: setattr(to_openbao, "fault", None)),
                unavailable(google, silence, lambda: setattr(kept, "fault", None)),
            )


async def test_a_close_that_fails_leaves_no_other_provider_open(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Providers(replace(openbao_access("http://127.0.0.1:1", prefix()), aws=aws_access("").aws))
    closed: set[Provider] = set()

    async def fails(provider: Provider) -> None:
        closed.add(provider)
        raise ArithmeticError

    for provider in (Provider.AWS, Provider.OPENBAO):
        monkeypatch.setattr(providers.api(provider), "close", partial(fails, provider))
    with pytest.raises(ArithmeticError):
        await providers.close()

    assert {Provider.AWS, Provider.OPENBAO} == closed
