"""The settings of outgoing requests: allowed networks, the proxy, and extra certificate authorities."""

import os
import re
import ssl
import stat
from ipaddress import ip_network
from typing import Final
from urllib.parse import unquote_to_bytes

from hookseal.config.forms import problem
from hookseal.dispatcher.core.url import AllowedNetwork
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import Malformed
from hookseal.ground.ids import owner_id

PROXY: Final = "HOOKSEAL_EGRESS_PROXY"
CA_FILE: Final = "HOOKSEAL_EGRESS_CA_FILE"

_MAX_CA_BYTES: Final = 1_048_576  # the CA bundle of an operating system has a quarter of that
_MAX_PORT: Final = 65_535
_CERTIFICATE: Final = re.compile("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_PROXY: Final = re.compile(r"http://(?:([!-~]+)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})/?")


def networks(text: str) -> tuple[AllowedNetwork, ...]:
    """Return the networks of a comma-separated list of `CIDR` or `CIDR@tenant`.

    Raises `ValueError`, without the value.
    """
    return tuple(_network(item.strip()) for item in text.split(","))


def _network(text: str) -> AllowedNetwork:
    network, at, tenant = text.partition("@")
    try:
        return AllowedNetwork(network=ip_network(network), tenant=owner_id(tenant) if at else None)
    except Malformed:
        raise ValueError from None


def proxy(text: str) -> EgressProxy:
    """Return the proxy of a url, with its credentials separated. Raises `ValueError`, without the value."""
    match = _PROXY.fullmatch(text)
    if match is None or not 0 < int(match[3]) <= _MAX_PORT:
        raise ValueError
    credentials, host, port = match.groups()
    # Another parser would end the host at a '/', '?' or '#' that is not percent-encoded.
    if credentials is not None and (":" not in credentials or re.search("[/?#@]", credentials)):
        raise ValueError
    raw = None if credentials is None else unquote_to_bytes(credentials)
    return EgressProxy(host=host.strip("[]"), port=int(port), credentials=raw)


def certificates(path: str, variable: str = CA_FILE) -> str:
    """Return the certificates of the PEM file of a variable, without the text between them. Raises a problem."""
    from hookseal.dispatcher.http.trust import client_context  # noqa: PLC0415 -- it loads much, and few have the file

    try:
        text = "\n".join(_CERTIFICATE.findall(_text(path)))
    except (OSError, ValueError) as error:
        raise problem(f"{variable} names a file that cannot be read ({type(error).__name__})") from None
    try:
        client_context(extra=text, only=True)
    except (ssl.SSLError, ValueError):
        raise problem(f"{variable} names a file that does not hold certificates in PEM form") from None
    return text


def _text(path: str) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 -- opening a pipe would block
        content = file.read(_MAX_CA_BYTES + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    if content is None or len(content) > _MAX_CA_BYTES:
        raise ValueError
    return content.decode("ascii", errors="replace")
