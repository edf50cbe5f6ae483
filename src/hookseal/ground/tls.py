"""The TLS context of a client."""

import ssl


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
