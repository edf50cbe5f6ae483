"""A tunnel through the egress proxy, to an address that was checked before (RFC 9110, 9.3.6)."""

import asyncio
import base64
import re
import socket
from dataclasses import dataclass, field
from typing import Final, NoReturn

from hookseal.dispatcher.core.model import Failure, FailureKind

_HEAD_BYTES_TAKEN: Final = 16_384
_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r)")
_WANTS_CREDENTIALS: Final = 407
_NOT_REACHED: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressProxy:
    """The HTTP proxy for all requests. `credentials` are `user:password` as bytes, and are never shown."""

    host: str
    port: int
    credentials: bytes | None = field(default=None, repr=False)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a proxy with its credentials must not be copied or pickled")


async def tunnel(proxy: EgressProxy, sock: socket.socket, address: str, port: int) -> Failure | None:
    """Connect the socket to the address through the proxy. Return None on success, else the failure.

    Raises `OSError` if the connection to the proxy breaks.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _connect_request(proxy, address, port))
    head = bytearray()
    while (end := head.find(_END)) < 0:
        taken = await loop.sock_recv(sock, 4096)
        head += taken
        if not taken or len(head) > _HEAD_BYTES_TAKEN:
            return _failed("closed the connection" if not taken else "answered with too much")
    if len(head) > end + len(_END):  # in TLS and HTTP the client sends first
        return _failed("sent more than the head of its answer")
    status = _STATUS.match(head)
    return _failed("did not answer in valid HTTP") if status is None else _failure_of_status(int(status[1]))


def _connect_request(proxy: EgressProxy, address: str, port: int) -> bytes:
    target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials).decode('ascii')}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _failure_of_status(status: int) -> Failure | None:
    if 200 <= status < 300:  # noqa: PLR2004 -- RFC 9110: any 2xx
        return None
    if status in _NOT_REACHED:
        return Failure(
            kind=FailureKind.CONNECTION, detail=f"the egress proxy could not connect to the receiver ({status})"
        )
    return _failed(
        "refused the credentials of HOOKSEAL_EGRESS_PROXY"
        if status == _WANTS_CREDENTIALS
        else f"refused the connection ({status})"
    )


def _failed(how: str) -> Failure:
    return Failure(kind=FailureKind.PROXY, detail=f"the egress proxy {how}")
