"""Whom a request trusts: the TLS context that every connection is made with."""

import ssl
from pathlib import Path
from typing import Final

from hookseal.dispatcher.guard import lacking
from hookseal.ground.errors import Exhausted, Unavailable

_MINIMUM: Final = ssl.TLSVersion.TLSv1_2


def client_context(*, extra: str | None = None, only: bool = False) -> ssl.SSLContext:
    """Return a context that verifies the receiver's certificate and name, from TLS 1.2 on.

    It trusts what the system trusts and, besides, the certificates of `extra`, as PEM; with `only` nothing but those.
    Reading what the system trusts takes tens of milliseconds. Raises `ssl.SSLError` if `extra` holds no certificate,
    `ValueError` if it is not text of that form, `Unavailable` if what the system trusts cannot be read (OpenSSL would
    trust nobody then, and say nothing), and `Exhausted` if that is for want of a file descriptor.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it verifies, and checks the name
    context.minimum_version = _MINIMUM
    context.set_alpn_protocols(("http/1.1",))
    if not only:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        _require_read(context, ssl.get_default_verify_paths().cafile)
    if extra is not None:
        context.load_verify_locations(cadata=extra)
    return context


def _require_read(context: ssl.SSLContext, path: str | None) -> None:
    """Return only if certificates were read from the file in which the system keeps them, if it has one."""
    if path is not None and not context.cert_store_stats()["x509"] and Path(path).stat().st_size:
        kind = Exhausted if lacking() else Unavailable
        raise kind(
            f"no certificate was read from {path}, in which the system keeps whom it trusts: it must be readable, "
            "and this process must have a file descriptor left for it"
        )
