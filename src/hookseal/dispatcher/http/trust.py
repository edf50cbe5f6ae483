"""Makes the TLS contexts that decide which certificates of receivers are trusted."""

import ssl
from pathlib import Path
from typing import Final

from hookseal.dispatcher.http.egress_guard import exhaustion_error
from hookseal.errors import Exhausted, Unavailable

_MINIMUM: Final = ssl.TLSVersion.TLSv1_2


def client_context(*, extra: str | None = None, only: bool = False) -> ssl.SSLContext:
    """Return a context that verifies the receiver's certificate and name, from TLS 1.2 on.

    It trusts the authorities of the system and the certificates in `extra`, which is PEM; with `only`, just those in
    `extra`. Reading the authorities of the system takes tens of milliseconds. Raises `ssl.SSLError` if `extra` contains
    no certificate, and `ValueError` if it is not PEM. Raises `Unavailable` if the authorities of the system cannot be
    read (OpenSSL would silently trust nothing), and `Exhausted` if no file descriptor is left for that.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # this protocol verifies the certificate and the name
    context.minimum_version = _MINIMUM
    context.set_alpn_protocols(("http/1.1",))
    if not only:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        _require_read(context, ssl.get_default_verify_paths().cafile)
    if extra is not None:
        context.load_verify_locations(cadata=extra)
    return context


def _require_read(context: ssl.SSLContext, path: str | None) -> None:
    """Raise `Exhausted` or `Unavailable` if the system has a file of authorities and none was read from it."""
    if path is not None and not context.cert_store_stats()["x509"] and Path(path).stat().st_size:
        kind = Exhausted if exhaustion_error() else Unavailable
        raise kind(
            f"no certificate was read from {path}, where the system keeps the authorities that it trusts: "
            "make the file readable, and leave this process a file descriptor for it"
        )
