"""The receiver of the benchmark: its process, its addresses, and its counts."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from tests.doubles import certificates
from tools.bench.processes import ended, line, module

_LOOK_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What arrived since the last reset; `milliseconds` since publishing, for bodies that contain the time."""

    requests: int
    connections: int
    seconds: float
    milliseconds: list[float]


class Receiver:
    """The receiver, controlled over HTTP. `pid` is its process; `authority` is the file of its CA certificate."""

    def __init__(self, ports: tuple[int, int], authority: Path, pid: int, session: aiohttp.ClientSession) -> None:
        self.authority = authority
        self.pid = pid
        self._ports = ports
        self._session = session

    def url(self, *, secure: bool = False, delay_ms: int = 0, name: str = "") -> str:
        """Return an address that answers after that many milliseconds."""
        scheme, port = ("https", self._ports[1]) if secure else ("http", self._ports[0])
        return f"{scheme}://127.0.0.1:{port}/{delay_ms}/{name}"

    async def forget(self) -> None:
        """Reset the counts."""
        async with self._session.delete(self.url()):
            pass

    async def counted(self) -> Count:
        """Return the counts."""
        async with self._session.get(self.url()) as response:
            return Count(**await response.json())

    async def all_of(self, requests: int, patience_seconds: float) -> Count:
        """Return the counts once that many requests have arrived. Raises `TimeoutError`."""
        async with asyncio.timeout(patience_seconds):
            while (count := await self.counted()).requests < requests:  # noqa: ASYNC110 -- it is another process
                await asyncio.sleep(_LOOK_SECONDS)
        return count


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver in its own process for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="hookseal-bench-tls-") as name:
        folder, log_file = Path(name), Path(name) / "receiver.log"
        authority, shown = _certificates(folder)
        with log_file.open("wb") as log:
            process = await module(
                *(Path(sys.executable), "tools.bench.sink", str(shown)),
                environment=os.environ,
                log=log,
                stdin=asyncio.subprocess.PIPE,
            )
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS)) as session:
                plain, secure = map(int, (await line(process, log_file)).split())
                yield Receiver((plain, secure), authority, process.pid, session)
        finally:
            await ended(process)


def _certificates(folder: Path) -> tuple[Path, Path]:
    authority, shown = folder / "authority.pem", folder / "shown.pem"
    vouching = certificates.authority()
    authority.write_text(vouching.pem, encoding="ascii")
    shown.write_bytes(certificates.issued("127.0.0.1", by=vouching).both)
    return authority, shown
