"""Makes sockets, for addresses that may be dialled only.

The check is here, where the socket is made. So it also covers addresses in URLs, which need no resolver, and names that
resolve to another address the second time.
"""

import errno
import resource
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from hookseal.dispatcher.address import Networks, refusal
from hookseal.dispatcher.http.request_progress import PROGRESS
from hookseal.ground.errors import exhausted_resource

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
        made = socket.socket(family=family, type=kind, proto=protocol)
    except OSError as error:
        progress.missing_resource = exhausted_resource(error)
        raise
    if made.fileno() < _usable_descriptors():  # the system assigns the lowest free number
        return made
    made.close()
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
