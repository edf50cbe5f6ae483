"""OpenBao: a real server that is sealed in mid-run, a policy that lacks a right, and what others do at a path."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from hookseal.errors import SecretDenied, SecretTampered
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.store.port import ProviderApi, Rest
from hookseal.secrets.store.several import Providers
from tests.doubles.openbao import as_root, token_for
from tests.doubles.providers import OWNER, PATIENCE_SECONDS, openbao_access, prefix
from tests.secrets.samples import NAME, TENANT

pytestmark = pytest.mark.req("SEC-18")
REF = SecretRef(provider=Provider.OPENBAO, tenant=TENANT, name=NAME, version=1)
PATH = f"{TENANT}/{NAME}.1"


@asynccontextmanager
async def _api(address: str, own: str, **token: str) -> AsyncIterator[ProviderApi]:
    providers = Providers(replace(openbao_access(address, own, **token), call_seconds=PATIENCE_SECONDS))
    try:
        yield providers.api(Provider.OPENBAO)
    finally:
        await providers.close()


async def test_the_documented_policy_is_minimal(openbao_address: str) -> None:
    own = prefix()
    rights = {f"secret/data/{own}/*": ["create", "read", "update"], f"secret/metadata/{own}/*": ["delete"]}

    def lines(without: tuple[str, str] | None = None) -> list[str]:
        return [
            f'path "{path}" {{ capabilities = ['
            + ", ".join(f'"{right}"' for right in granted if (path, right) != without)
            + "] }"
            for path, granted in rights.items()
        ]

    async def calls(token: str, number: int) -> None:
        ref = SecretRef(provider=Provider.OPENBAO, tenant=TENANT, name=NAME, version=number)
        async with _api(openbao_address, own, token=token) as api:
            await api.write(ref, b"x", owner=OWNER, is_first=True)
            await api.read(ref)
            await api.remove(ref, Rest(is_needed=False), owner=OWNER)

    await calls((await token_for(openbao_address, *lines())).reveal().decode(), 1)
    data, metadata = rights
    for number, without in enumerate([(data, "create"), (data, "read"), (metadata, "delete")], 2):
        token = await token_for(openbao_address, *lines(without))
        with pytest.raises(SecretDenied, match="give its policy that right"):
            await calls(token.reveal().decode(), number)


@pytest.mark.parametrize("kind", [None, "transit", "kv"])
async def test_another_engine_is_refused(openbao_address: str, kind: str | None) -> None:
    own = prefix()
    if kind is not None:
        await as_root(openbao_address, "POST", f"sys/mounts/{own}", {"type": kind})
    access = openbao_access(openbao_address, own)
    assert access.openbao is not None
    providers = Providers(replace(access, openbao=replace(access.openbao, mount=own), call_seconds=PATIENCE_SECONDS))
    api = providers.api(Provider.OPENBAO)
    for call in (
        api.write(REF, b"x", owner=OWNER, is_first=True),
        api.read(REF),
        api.remove(REF, Rest(is_needed=False), owner=OWNER),
    ):
        with pytest.raises(SecretDenied, match=rf"no engine KV, version 2, at {own}.*bao secrets enable.*BAO_MOUNT"):
            await call
    await providers.close()


async def test_a_foreign_second_version_is_refused(openbao_address: str) -> None:
    own = prefix()
    async with _api(openbao_address, own) as api:
        await api.write(REF, b"x", owner=OWNER, is_first=True)
        await as_root(openbao_address, "POST", f"secret/data/{own}/{PATH}", {"data": {"value": "eA==", "owner": OWNER}})
        with pytest.raises(SecretTampered, match="another version"):
            await api.read(REF)


@pytest.mark.parametrize("data", [{}, {"value": "not base64!"}, {"password": "x"}], ids=repr)
async def test_foreign_content_is_refused(openbao_address: str, data: dict[str, str]) -> None:
    own = prefix()
    await as_root(openbao_address, "POST", f"secret/data/{own}/{PATH}", {"data": data})
    async with _api(openbao_address, own) as api:
        with pytest.raises(SecretTampered, match="another form than hookseal writes"):
            await api.read(REF)
        with pytest.raises(SecretDenied, match="did not make it"):
            await api.write(REF, b"x", owner=OWNER, is_first=True)
