"""Resolves host names, with the system's resolver, in threads that no tenant can fill.

The system's resolver is what the operator set up (hosts file, search domains, name service switch), and it holds a
thread for as long as a name server keeps it waiting. So each look-up has a thread of its own, that nothing waits for
when the process ends, and a tenant has only so many at a time.
"""

import asyncio
import errno
import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher.course import Limits
from hookseal.dispatcher.guard import lacking
from hookseal.ground.ids import TenantId

KNOWN_SECONDS: Final = 10.0
MAX_KNOWN: Final = 1_000
MAX_ADDRESSES: Final = 32  # a hostile name server has thousands: each is kept, checked and dialled
Addresses = tuple[str, ...]
_Found = list[tuple[Any, ...]]


def system_look_up(host: str) -> Addresses:
    """Return the first addresses of a name, in the order in which they are to be dialled.

    Raises `OSError`, `ValueError`; an `OSError` of our own lack if it failed while no socket can be made.
    """
    try:
        found: _Found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror as error:  # without a descriptor it says that the name is not known
        raise lacking() or error from None
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))[:MAX_ADDRESSES]


class LookUps:
    """The look-ups of a process that are under way: so many for one tenant, and so many in all."""

    def __init__(self, limits: Limits, look_up: Callable[[str], Addresses] = system_look_up) -> None:
        self._limits = limits
        self.look_up = look_up
        self._busy: Counter[TenantId | None] = Counter()
        self._threads = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order in which they came

    def has_room(self, tenant: TenantId | None) -> bool:
        """Return whether a look-up for this tenant may begin."""
        return self._threads < self._limits.look_ups and self._busy[tenant] < self._limits.look_ups_each

    async def change(self) -> None:
        """Return once a look-up has ended. Those who came first are the first to go on."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        try:
            await waiter
        finally:
            del self._waiting[waiter]

    def begun(self, tenant: TenantId | None, host: str) -> "asyncio.Future[Addresses]":
        """Return what will be the addresses of a name, or what the look-up raises. There must be room for it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Addresses] = loop.create_future()

        def ended(found: Addresses | Exception) -> None:
            self._threads -= 1
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        thread = threading.Thread(target=_run, args=(self.look_up, host, loop, ended), name="look-up", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives us no thread
            raise OSError(errno.ENOMEM, "no thread for a look-up") from None
        self._threads += 1
        self._busy[tenant] += 1
        return answer


def _run(
    look_up: Callable[[str], Addresses],
    host: str,
    loop: asyncio.AbstractEventLoop,
    ended: Callable[[Addresses | Exception], None],
) -> None:
    found: Addresses | Exception
    try:
        found = look_up(host)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is raised where the answer is awaited
        found = error
    try:
        loop.call_soon_threadsafe(ended, found)
    except RuntimeError:  # the loop has ended meanwhile
        return


class Names:
    """The names that one session knows, each for a few seconds, and the look-ups that are shared meanwhile."""

    def __init__(self, look_ups: LookUps) -> None:
        self._look_ups = look_ups
        self._known: OrderedDict[str, tuple[float, Addresses]] = OrderedDict()
        self._asked: dict[tuple[TenantId | None, str], asyncio.Future[Addresses]] = {}

    async def addresses(self, tenant: TenantId | None, host: str) -> Addresses:
        """Return the addresses of a name. Tenants wait each for their own look-up, and share what it found.

        Raises what the look-up raises; a failure is not remembered. Who stops waiting before there is room for a
        look-up leaves nothing behind.
        """
        while (addresses := self._remembered(host)) is None:
            asked = self._asked.get((tenant, host))
            if asked is None and self._look_ups.has_room(tenant):
                asked = self._begun(tenant, host)
            if asked is not None:
                return await asyncio.shield(asked)
            await self._look_ups.change()
        return addresses

    def _remembered(self, host: str) -> Addresses | None:
        until, addresses = self._known.get(host, (0.0, ()))
        return addresses if asyncio.get_running_loop().time() < until else None

    def _begun(self, tenant: TenantId | None, host: str) -> "asyncio.Future[Addresses]":
        asked = self._look_ups.begun(tenant, host)
        self._asked[tenant, host] = asked
        asked.add_done_callback(lambda answer: self._answered((tenant, host), answer))
        return asked

    def _answered(self, key: tuple[TenantId | None, str], answer: "asyncio.Future[Addresses]") -> None:
        del self._asked[key]
        if answer.exception() is not None:  # it was raised to those who still waited
            return
        host = key[1]
        self._known[host] = (asyncio.get_running_loop().time() + KNOWN_SECONDS, answer.result())
        self._known.move_to_end(host)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
