"""Makes sockets, for addresses that may be dialled only.

The check is here, where the socket is made. So it also covers addresses in URLs, which need no resolver, and names that
resolve to another address the second time.
"""

import asyncio
import errno
import resource
import socket
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Any, Final

from hookseal.dispatcher.core.url import Networks, refusal
from hookseal.dispatcher.http.observation import PROGRESS, Limits
from hookseal.errors import exhausted_resource
from hookseal.ground.ids import TenantId

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

_DISCARD_PORT: Final = 9
# Kept free for PostgreSQL, Redis, the probes, look-ups and logs: without one, no outcome could be recorded.
RESERVED_DESCRIPTORS: Final = 256


class ForbiddenAddressError(OSError):
    """The address may not be dialled."""


class TooLateError(OSError):
    """It is too late for the request to begin."""


def exhaustion_error() -> OSError | None:
    """Return the error if this machine cannot make a socket now, None if it can.

    Some functions of the system report this as another error.
    """
    try:
        socket.socket().close()
    except OSError as error:
        return error if exhausted_resource(error) else None
    return None


class Guard:
    """Checks addresses: public addresses of other machines may be dialled, and those that the operator has allowed."""

    def __init__(self, allowed: Networks, *, refuses: Callable[[str, Networks], str | None] = refusal) -> None:
        self._allowed = allowed
        self._refuses = refuses

    def refusal_of(self, address: str) -> str | None:
        """Return why this address may not be dialled, None if it may."""
        reason = self._refuses(address, self._allowed)
        if reason is None and not self._is_allowed(address) and is_of_this_machine(address):
            return "an address of this machine"
        return reason

    def socket(self, info: AddressInfo) -> socket.socket:
        """Return a socket for a resolved address.

        Raises `ForbiddenAddressError` if it may not be dialled, and as `begun_socket` does.
        """
        reason = self.refusal_of(str(info[4][0]))
        if reason is not None:
            raise ForbiddenAddressError(f"the address may not be dialled ({reason})")
        return begun_socket(info)

    def _is_allowed(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self._allowed)


def begun_socket(info: AddressInfo) -> socket.socket:
    """Return a socket without checking the address.

    Raises `TooLateError` if it is too late for the request to begin. Raises `OSError`, and sets `missing_resource`, if
    only reserved descriptors are left: the last 256 of the limit of this process, or half of the limit if that is less.
    """
    progress = PROGRESS.get()
    if not progress.begin():
        raise TooLateError
    family, kind, protocol, _, _ = info
    try:
        new_socket = socket.socket(family=family, type=kind, proto=protocol)
    except OSError as error:
        progress.missing_resource = exhausted_resource(error)
        raise
    if new_socket.fileno() < _usable_descriptors():  # the system assigns the lowest free number
        return new_socket
    new_socket.close()
    progress.missing_resource = errno.errorcode[errno.EMFILE]
    raise OSError(errno.EMFILE, "only reserved file descriptors are left")


def _usable_descriptors() -> int:
    """Return how many descriptors this process may use, including those for connections to receivers."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(RESERVED_DESCRIPTORS, limit // 2)


def is_of_this_machine(address: str) -> bool:
    """Return whether the system would reach the address without leaving this machine. Nothing is sent.

    A service that listens on every address of a machine is often meant for its own network only.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, _DISCARD_PORT))
        except OSError:  # there is no route
            return False
        return bool(ip_address(probe.getsockname()[0]) == ip_address(address))


KNOWN_SECONDS: Final = 10.0
MAX_KNOWN: Final = 1_000
MAX_ADDRESSES: Final = 32  # a hostile name server may return thousands, and each is stored, checked and dialled
KEPT_THREADS: Final = 16
Addresses = tuple[str, ...]
_AddressInfos = list[tuple[Any, ...]]


def system_look_up(host: str) -> Addresses:
    """Return the first addresses of a name, in the order in which they are to be dialled.

    Raises `OSError` and `ValueError`. If the look-up failed and no socket can be made now, it raises that `OSError`.
    """
    try:
        infos: _AddressInfos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror as error:  # without a free descriptor it reports an unknown name
        raise exhaustion_error() or error from None
    return tuple(dict.fromkeys(str(info[4][0]) for info in infos))[:MAX_ADDRESSES]


class LookUps:
    """The running look-ups of a process, limited in number for each tenant and in all, and the threads that run them.

    A tenant may have `look_ups_each` of them at a time, as long as a thread is free. It may have more if fewer than
    half of all threads are busy, but not more than are left of this half. So look-ups of one tenant that hang take at
    most a quarter of all threads, and then another tenant may still have an eighth.
    """

    def __init__(self, limits: Limits, look_up: Callable[[str], Addresses] = system_look_up) -> None:
        self._limits = limits
        self.look_up = look_up
        self._busy: Counter[TenantId | None] = Counter()
        self._running = 0
        # Of each tenant its callers, in the order in which they came, and what lets them continue if it can.
        self._waiting: OrderedDict[TenantId | None, dict[asyncio.Future[None], Callable[[], bool]]] = OrderedDict()
        self._work: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()
        self._idle_threads = 0
        self._kept_threads = KEPT_THREADS

    def has_room(self, tenant: TenantId | None) -> bool:
        """Return whether a look-up for this tenant may begin."""
        shared = self._limits.look_ups // 2 - self._running
        most = max(self._limits.look_ups_each, shared)
        return self._running < self._limits.look_ups and self._busy[tenant] < most

    async def wait(self, tenant: TenantId | None, goes_on: Callable[[], bool]) -> None:
        """Return once `goes_on` has returned true. It is asked when a look-up has ended, the tenants in turn."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, {})[waiter] = goes_on
        try:
            await waiter
        finally:
            self._leave(tenant, waiter)

    def begin(self, tenant: TenantId | None, host: str) -> "asyncio.Future[Addresses]":
        """Start a look-up and return the future of its result. `has_room` must be true. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Addresses] = loop.create_future()

        def ended(result: Addresses | Exception) -> None:
            self._running -= 1
            self._busy[tenant] -= 1
            if not self._busy[tenant]:
                del self._busy[tenant]
            if self._idle_threads < self._kept_threads:
                self._idle_threads += 1
            else:
                self._work.put(None)
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
            loop.call_soon(self._wake)  # by then the answer is known

        work = partial(_run, self.look_up, host, loop, ended)
        if self._idle_threads:
            self._idle_threads -= 1
        else:
            self._start_thread()
        self._work.put(work)
        self._running += 1
        self._busy[tenant] += 1
        return answer

    def close(self) -> None:
        """End the threads, each once its look-up has ended."""
        self._kept_threads = 0
        while self._idle_threads:
            self._idle_threads -= 1
            self._work.put(None)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=_serve, args=(self._work,), name="look-up", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            raise OSError(errno.ENOMEM, "no thread can be started for a look-up") from None

    def _wake(self) -> None:
        for tenant in list(self._waiting):
            for waiter, goes_on in list(self._waiting[tenant].items()):
                if waiter.done():
                    continue
                try:
                    if not goes_on():
                        break
                except OSError as error:
                    waiter.set_exception(error)
                else:
                    waiter.set_result(None)
                self._waiting.move_to_end(tenant)
                self._leave(tenant, waiter)

    def _leave(self, tenant: TenantId | None, waiter: "asyncio.Future[None]") -> None:
        callers = self._waiting.get(tenant, {})
        callers.pop(waiter, None)
        if not callers:
            self._waiting.pop(tenant, None)


def _serve(work: "SimpleQueue[Callable[[], bool] | None]") -> None:
    while (look_up := work.get()) is not None and look_up():
        pass


def _run(
    look_up: Callable[[str], Addresses],
    host: str,
    loop: asyncio.AbstractEventLoop,
    ended: Callable[[Addresses | Exception], None],
) -> bool:
    """Look up a name, and return whether the result could be passed on: not if the event loop is closed."""
    result: Addresses | Exception
    try:
        result = look_up(host)
    except Exception as error:  # noqa: BLE001 -- it is raised where the result is awaited
        result = error
    try:
        loop.call_soon_threadsafe(ended, result)
    except RuntimeError:
        return False
    return True


class Names:
    """The host names of one session: addresses that are cached for a few seconds, and the running look-ups."""

    def __init__(self, look_ups: LookUps) -> None:
        self._look_ups = look_ups
        self._known: OrderedDict[str, tuple[float, Addresses]] = OrderedDict()
        self._running: dict[tuple[TenantId | None, str], asyncio.Future[Addresses]] = {}

    async def addresses(self, tenant: TenantId | None, host: str) -> Addresses:
        """Return the addresses of a name. Each tenant waits for its own look-up; all tenants share the result.

        Raises what the look-up raises; a failure is not cached. A cancellation before there is room for a look-up has
        no effect on others.
        """
        while (addresses := self._cached(host)) is None:
            look_up = self._joined(tenant, host)
            if look_up is not None:
                return await asyncio.shield(look_up)
            await self._look_ups.wait(
                tenant, lambda: self._cached(host) is not None or self._joined(tenant, host) is not None
            )
        return addresses

    def _cached(self, host: str) -> Addresses | None:
        until, addresses = self._known.get(host, (0.0, ()))
        return addresses if asyncio.get_running_loop().time() < until else None

    def _joined(self, tenant: TenantId | None, host: str) -> "asyncio.Future[Addresses] | None":
        """Return the tenant's look-up of this name, which is begun if there is room; None if there is not."""
        look_up = self._running.get((tenant, host))
        if look_up is None and self._look_ups.has_room(tenant):
            look_up = self._begin(tenant, host)
        return look_up

    def _begin(self, tenant: TenantId | None, host: str) -> "asyncio.Future[Addresses]":
        look_up = self._look_ups.begin(tenant, host)
        self._running[tenant, host] = look_up
        look_up.add_done_callback(lambda answer: self._ended((tenant, host), answer))
        return look_up

    def _ended(self, key: tuple[TenantId | None, str], answer: "asyncio.Future[Addresses]") -> None:
        del self._running[key]
        if answer.exception() is not None:  # raised in `addresses`
            return
        host = key[1]
        self._known[host] = (asyncio.get_running_loop().time() + KNOWN_SECONDS, answer.result())
        self._known.move_to_end(host)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
