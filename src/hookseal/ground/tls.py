"""The TLS context of a client, and which addresses need none."""

import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

_ELSEWHERE: Final = IPv4Address("192.0.2.1")  # stands for any name (RFC 5737)


def verifying_context(authorities: str | None) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate and name, from TLS 1.2 on.

    It trusts only these authorities, which are PEM; None: those that the system trusts. It accepts the same
    certificates with every Python. From Python 3.13 on `ssl.create_default_context` refuses, for instance, an authority
    without a key usage (RFC 5280, 4.2.1.3), which many that people make themselves lack, and it accepts an authority
    whose own issuer is missing. Raises `ssl.SSLError` or `ValueError` if the authorities are not PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # this protocol verifies the certificate and the name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cadata=authorities)
    return context


def is_protected(url: str, *, proxies: bool = False) -> bool:
    """Return whether nobody outside this machine can read what is sent to this url: it is https, or a loopback address.

    With `proxies` the client obeys `HTTP_PROXY` and the like, which would lead http of a loopback address elsewhere.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return True
    if parts.scheme != "http" or not (host == "localhost" or _address(host).is_loopback):
        return False
    return not proxies or goes_directly(parts.netloc)


def goes_directly(host: str) -> bool:
    """Return whether a client that obeys `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` sends http to this host by no proxy.

    With a port it decides as a client that compares `NO_PROXY` with host and port, without one as others do.
    """
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 -- it loads what speaks HTTP: few ask for it

    return not ({"http", "all"} & getproxies().keys()) or bool(proxy_bypass(host))


def is_beside_this_machine(url: str) -> bool:
    """Return whether the host of the url is an address that no router passes on, as that of a server of metadata."""
    try:
        return _address(urlsplit(url).hostname or "").is_link_local
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(host)
    except ValueError:
        return _ELSEWHERE
