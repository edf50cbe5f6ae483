"""Whom a request trusts: the TLS context that every connection is made with."""

import ssl
from typing import Final

_MINIMUM: Final = ssl.TLSVersion.TLSv1_2


def client_context(*, extra: str | None = None, only: bool = False) -> ssl.SSLContext:
    """Return a context that verifies the receiver's certificate and name, from TLS 1.2 on.

    It trusts what the system trusts and, besides, the certificates of `extra`, as PEM; with `only` nothing but those.
    Reading what the system trusts takes tens of milliseconds. Raises `ssl.SSLError` if `extra` holds no certificate,
    `ValueError` if it is not text of that form.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it verifies, and checks the name
    context.minimum_version = _MINIMUM
    context.set_alpn_protocols(("http/1.1",))
    if not only:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if extra is not None:
        context.load_verify_locations(cadata=extra)
    return context
