"""The files that a url of PostgreSQL names for TLS, tried before anything is connected."""

import ssl
from collections.abc import Mapping
from typing import Final

from hookseal.config.url_parameters import refused

_VERIFYING: Final = frozenset({"require", "verify-ca", "verify-full"})  # with these the driver reads the authorities


def require_usable(parameters: Mapping[str, str]) -> None:
    """Return only if each file that the connection will need can be read and holds what it must.

    Raises a problem that names the parameter and what to change, never the path.
    """
    mode = parameters.get("sslmode", "prefer")
    if mode in _VERIFYING:
        for name in ("sslrootcert", "sslcrl"):
            if name in parameters:
                _require_authorities(name, parameters[name])
    if mode != "disable" and {"sslcert", "sslkey"} <= parameters.keys():
        _require_identity(parameters)


def _require_authorities(name: str, file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        what = "certificates" if name == "sslrootcert" else "revoked certificates"
        raise refused(name, f"whose file does not hold {what} in PEM form: name the right one") from None
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def _require_identity(parameters: Mapping[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslcert", "sslkey"):
        try:
            open(parameters[name], "rb").close()  # noqa: PTH123 -- what is loaded below does not say which it was
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
    try:
        context.load_cert_chain(
            parameters["sslcert"], parameters["sslkey"], password=lambda: parameters.get("sslpassword", "")
        )
    except (OSError, ValueError):
        raise refused(
            "sslcert", "whose certificate does not fit the key of sslkey, or the key does not open with sslpassword"
        ) from None


def _unreadable(name: str, error: Exception) -> Exception:
    return refused(
        name,
        f"whose file cannot be read ({type(error).__name__}): let this user read it, or correct its path",
    )
