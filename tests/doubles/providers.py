"""The interfaces of the providers outside PostgreSQL, on servers of the tests, with names that no other test has."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final

import grpc

from hookseal.postgres.pool import Pool, connected
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.store.external import ExternalStore, Installation
from hookseal.secrets.store.port import Access, AwsAccess, GcpAccess, OpenBaoAccess, ProviderApi
from hookseal.secrets.store.several import Providers
from tests.doubles.google import PROJECT, GoogleSecrets, google_secrets
from tests.doubles.openbao import ROOT_TOKEN

OWNER: Final = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
REGION: Final = "eu-central-1"
# What makes clients of AWS ask another server than AWS, and find credentials nowhere but here.
AWS_ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
PATIENCE_SECONDS: Final = 60.0  # for a call on a busy machine; tests of silence take the limit of the product
_NUMBERS = count()


def prefix() -> str:
    """Return what the names of one test begin with."""
    return f"t{os.getpid()}-{next(_NUMBERS)}"


def google_access(port: int, own: str) -> Access:
    channel = partial(grpc.aio.insecure_channel, f"127.0.0.1:{port}")
    return Access(gcp=GcpAccess(project=PROJECT, channel=channel), prefix=own)


def openbao_access(address: str, own: str, token: str = ROOT_TOKEN) -> Access:
    server = OpenBaoServer(address=address, credentials=SecretMaterial(token.encode()))
    return Access(openbao=OpenBaoAccess(server=server), prefix=own)


def aws_access(own: str, role_arn: str | None = None) -> Access:
    return Access(aws=AwsAccess(region=REGION, role_arn=role_arn), prefix=own)


@asynccontextmanager
async def api_of(provider: Provider, where: str) -> AsyncIterator[ProviderApi]:
    """Give the interface of the provider; `where` is the url of its server, if the test has started one."""
    own = prefix()
    match provider:
        case Provider.OPENBAO:
            async with _made(openbao_access(where, own), provider) as api:
                yield api
        case Provider.AWS:
            async with _made(aws_access(own), provider) as api:
                yield api
        case _:
            async with google_secrets() as (_, port), _made(google_access(port, own), provider) as api:
                yield api


@asynccontextmanager
async def google_api() -> AsyncIterator[tuple[GoogleSecrets, ProviderApi]]:
    """Give the interface of a Google, and what that keeps."""
    async with google_secrets() as (kept, port), _made(google_access(port, "hookseal"), Provider.GCP) as api:
        yield kept, api


@asynccontextmanager
async def google_outside(pool: Pool) -> AsyncIterator[tuple[GoogleSecrets, Outside]]:
    """Give what an installation on this pool needs of a Google, and what that keeps."""
    async with google_secrets() as (kept, port), outside(pool, google_access(port, "hookseal")) as found:
        yield kept, found


@asynccontextmanager
async def outside(pool: Pool, access: Access) -> AsyncIterator[Outside]:
    """Give what an installation on this pool needs of these providers."""
    providers = Providers(replace(access, call_seconds=PATIENCE_SECONDS))
    try:
        yield Outside(providers=providers, apart=partial(connected, pool))
    finally:
        await providers.close()


def external(pool: Pool, api: ProviderApi) -> ExternalStore:
    return ExternalStore(pool, api, Installation(id=OWNER, apart=partial(connected, pool)))


@asynccontextmanager
async def _made(access: Access, provider: Provider) -> AsyncIterator[ProviderApi]:
    providers = Providers(replace(access, call_seconds=PATIENCE_SECONDS))
    try:
        await providers.api(provider).prepare()
        yield providers.api(provider)
    finally:
        await providers.close()
