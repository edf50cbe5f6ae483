"""The three KMS, each on a server that speaks its protocol, with what the laws do to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import grpc.aio
import pytest

from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms import aws, gcp, transit
from hookseal.secrets.kms.wrapped import Kms, KmsKey
from hookseal.secrets.openbao.server import OpenBaoServer
from tests.doubles.aws import CREDENTIALS, REGION, aws_client
from tests.doubles.google_kms import GoogleKms, google_kms
from tests.doubles.openbao import ROOT_TOKEN, as_root

SECONDS = 2.0
NOWHERE = "127.0.0.1:1"

Open = Callable[[KmsKey], AbstractAsyncContextManager[Kms]]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A KMS with two keys, and a third one that is only a name; `rotate` gives the first another version."""

    one: KmsKey
    another: KmsKey
    missing: KmsKey
    opened: Open
    unreachable: Open
    rotate: Callable[[], Awaitable[object]]


@asynccontextmanager
async def aws_site(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Give two new keys of AWS KMS. The client finds credentials and address in the environment, as boto does."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def opened_at(url: str) -> Open:
        def opened(key: KmsKey) -> AbstractAsyncContextManager[Kms]:
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
            return aws.opened(key, seconds=SECONDS)

        return opened

    with aws_client(address, "kms") as client:
        one, another = [(await client.create_key())["KeyMetadata"]["Arn"] for _ in range(2)]
        yield Site(
            one=KmsKey.parse(f"aws:{one}"),
            another=KmsKey.parse(f"aws:{another}"),
            missing=KmsKey.parse(f"aws:arn:aws:kms:{REGION}:123456789012:key/{uuid4()}"),
            opened=opened_at(address),
            unreachable=opened_at(f"http://{NOWHERE}"),
            rotate=lambda: client.rotate_key_on_demand(KeyId=one),
        )


@asynccontextmanager
async def gcp_site() -> AsyncIterator[Site]:
    """Give two keys of a server with the protocol of Cloud KMS."""
    ring = "gcp:projects/acme/locations/europe-west1/keyRings/hookseal/cryptoKeys"
    one, another, missing = (KmsKey.parse(f"{ring}/{name}") for name in ("one", "another", "missing"))
    async with google_kms() as (server, address):
        for key in (one, another):
            server.rotate(key.name)

        async def rotate() -> None:
            server.rotate(one.name)

        yield Site(
            one=one,
            another=another,
            missing=missing,
            opened=lambda key: gcp_opened(key, address),
            unreachable=lambda key: gcp_opened(key, NOWHERE),
            rotate=rotate,
        )


def gcp_opened(key: KmsKey, address: str) -> AbstractAsyncContextManager[Kms]:
    """Give the official client on a plain channel to that address."""
    return gcp.opened(key, seconds=SECONDS, channel=partial(grpc.aio.insecure_channel, address))


@asynccontextmanager
async def failing_gcp(key: KmsKey) -> AsyncIterator[tuple[GoogleKms, Kms]]:
    """Give a server with that key, and a client of it."""
    async with google_kms() as (server, address), gcp_opened(key, address) as kms:
        server.rotate(key.name)
        yield server, kms


@asynccontextmanager
async def openbao_site(address: str) -> AsyncIterator[Site]:
    """Give two keys of a new transit engine."""
    mount = f"transit-{uuid4().hex}"
    await as_root(address, "POST", f"sys/mounts/{mount}", {"type": "transit"})
    for name in ("one", "another"):
        await as_root(address, "POST", f"{mount}/keys/{name}", {})
    yield Site(
        one=KmsKey.parse(f"openbao:{mount}/one"),
        another=KmsKey.parse(f"openbao:{mount}/another"),
        missing=KmsKey.parse(f"openbao:{mount}/missing"),
        opened=lambda key: transit.opened(key, openbao_server(address), seconds=SECONDS),
        unreachable=lambda key: transit.opened(key, openbao_server(f"http://{NOWHERE}"), seconds=SECONDS),
        rotate=lambda: as_root(address, "POST", f"{mount}/keys/one/rotate", {}),
    )


def openbao_server(address: str, token: SecretMaterial | None = None) -> OpenBaoServer:
    return OpenBaoServer(address=address, credentials=token or SecretMaterial(ROOT_TOKEN.encode()))
