"""The open sessions of a transport: which requests share connections, and for how long.

A session has connections, DNS answers and a TLS context. Only requests with the same egress rights and the same TLS
identity share it. Unused sessions are closed, and their number is bounded.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import BaseConnector

from hookseal.dispatcher.core.model import TlsIdentity
from hookseal.dispatcher.core.url import Networks

MAX_SESSIONS: Final = 256
UNUSED_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class Shared:
    """A session, the TLS identity for which it was opened, and how many requests use it."""

    key: tuple[Networks, str | None]
    connector: BaseConnector
    identity: TlsIdentity | None
    users: int = 0
    used_at: float = 0.0
    expiry: asyncio.TimerHandle | None = None


class Sessions:
    """Lends sessions. It belongs to one event loop, and `close` ends all of them."""

    def __init__(self, opened: Callable[[Networks, TlsIdentity | None], BaseConnector]) -> None:
        self._opened = opened
        self._open: OrderedDict[tuple[Networks, str | None], Shared] = OrderedDict()
        self._retired: set[Shared] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def take(self, allowed: Networks, identity: TlsIdentity | None) -> Shared:
        """Return a session for these rights and this identity. The caller must give it back."""
        key = (allowed, None if identity is None else identity.key)
        shared = self._open.get(key)
        if shared is not None and _context(shared.identity) is not _context(identity):
            self._retire(shared)
            shared = None
        if shared is None:
            shared = self._opened_for(key, identity)
        self._open.move_to_end(key)
        shared.users += 1
        if len(self._open) > MAX_SESSIONS:
            self._shrink()
        return shared

    def give_back(self, shared: Shared) -> None:
        """Take a session back; it is closed if it was retired meanwhile and no other request uses it."""
        shared.users -= 1
        if not shared.users:
            shared.used_at = asyncio.get_running_loop().time()
        if shared in self._retired:
            self._close_unused(shared)
        elif len(self._open) > MAX_SESSIONS:
            self._shrink()

    async def close(self) -> None:
        """Close every session, including those in use."""
        if self._sweep is not None:
            self._sweep.cancel()
        for shared in [*self._open.values(), *self._retired]:
            shared.users = 0
            self._retire(shared)
        while self._closing:
            await asyncio.gather(*self._closing)

    def _opened_for(self, key: tuple[Networks, str | None], identity: TlsIdentity | None) -> Shared:
        loop = asyncio.get_running_loop()
        shared = Shared(key=key, connector=self._opened(key[0], identity), identity=identity, used_at=loop.time())
        self._open[key] = shared
        if identity is not None and identity.expires_at is not None:
            shared.expiry = loop.call_at(identity.expires_at, self._retire, shared)
        if self._sweep is None:
            self._sweep = loop.call_later(UNUSED_SECONDS, self._close_idle)
        return shared

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        for shared in [shared for shared in self._open.values() if not shared.users]:
            if shared.used_at + UNUSED_SECONDS <= loop.time():
                self._retire(shared)
        self._sweep = loop.call_later(UNUSED_SECONDS, self._close_idle) if self._open else None

    def _shrink(self) -> None:
        """Close unused sessions, the least recently used first, until at most `MAX_SESSIONS` are open."""
        unused = [shared for shared in self._open.values() if not shared.users]
        for shared in unused[: len(self._open) - MAX_SESSIONS]:
            self._retire(shared)

    def _retire(self, shared: Shared) -> None:
        """Give the session to no further request, and close it once no request uses it."""
        if self._open.get(shared.key) is shared:
            del self._open[shared.key]
        if shared.expiry is not None:
            shared.expiry.cancel()
        shared.identity = None
        self._retired.add(shared)
        self._close_unused(shared)

    def _close_unused(self, shared: Shared) -> None:
        if shared.users:
            return
        self._retired.discard(shared)
        task = asyncio.get_running_loop().create_task(_closed(shared.connector))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _context(identity: TlsIdentity | None) -> object:
    return None if identity is None else identity.context


async def _closed(connector: BaseConnector) -> None:
    await connector.close()
