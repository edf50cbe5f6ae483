"""Makes sockets, for addresses that may be dialled only.

The check sits here, where the socket is made, so it holds for literals, which no resolver sees, and for a name that
resolves to something else the second time.
"""

import errno
import resource
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from hookseal.dispatcher.address import Networks, refusal
from hookseal.dispatcher.course import COURSE
from hookseal.ground.lack import lack

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

_DISCARD_PORT: Final = 9
# Those of PostgreSQL, Redis, the probes, look-ups and logs: a request that took the last one would cost its outcome.
RESERVED_DESCRIPTORS: Final = 256


class ForbiddenAddressError(OSError):
    """The address may not be dialled."""


class TooLateError(OSError):
    """The request may not begin any more."""


def lacking() -> OSError | None:
    """Return the error with which no socket can be made now, None if one can: what some say by another name."""
    try:
        socket.socket().close()
    except OSError as error:
        return error if lack(error) else None
    return None


class Guard:
    """Knows what may be dialled with these rights: what is public and not of this machine, and what is allowed."""

    def __init__(self, allowed: Networks, *, refuses: Callable[[str, Networks], str | None] = refusal) -> None:
        self._allowed = allowed
        self._refuses = refuses

    def refusal_of(self, address: str) -> str | None:
        """Return why this address may not be dialled, None if it may."""
        reason = self._refuses(address, self._allowed)
        if reason is None and is_of_this_machine(address) and not self._is_allowed(address):
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
    """Return a socket for an address that is not asked about.

    Raises `TooLateError` if the request may not begin any more, and an `OSError` that names our lack (`lack`) if there
    is no descriptor for it beside those that are reserved: of the limit of this process the last 256, or half of it.
    """
    course = COURSE.get()
    if not course.begin():
        raise TooLateError
    family, kind, protocol, _, _ = info
    try:
        made = socket.socket(family=family, type=kind, proto=protocol)
    except OSError as error:
        course.lack = lack(error)
        raise
    if made.fileno() < _descriptors():  # the system gives the lowest that is free
        return made
    made.close()
    course.lack = errno.errorcode[errno.EMFILE]
    raise OSError(errno.EMFILE, "the descriptors that are left are reserved")


def _descriptors() -> int:
    """Return how many descriptors connections to receivers may take, with all others of this process before them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(RESERVED_DESCRIPTORS, limit // 2)


def is_of_this_machine(address: str) -> bool:
    """Return whether the system would reach the address without leaving this machine. Nothing is sent.

    What listens on every address of a machine is often meant for its neighbours only.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, _DISCARD_PORT))
        except OSError:  # nothing leads there
            return False
        return bool(ip_address(probe.getsockname()[0]) == ip_address(address))
