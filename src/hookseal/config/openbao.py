"""The variables of OpenBao, or Vault: they are read if secrets or the master key need it."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import ValidationInfo

from hookseal.config import egress
from hookseal.config.forms import problem
from hookseal.config.settings import Environment
from hookseal.ground.tls import is_protected
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.server import AppRole, OpenBaoServer

ADDRESS: Final = "BAO_ADDR"
TOKEN: Final = "BAO_TOKEN"  # noqa: S105 -- a name
ROLE_ID: Final = "BAO_ROLE_ID"
SECRET_ID: Final = "BAO_SECRET_ID"  # noqa: S105 -- a name
NAMESPACE: Final = "BAO_NAMESPACE"
AUTHORITIES: Final = "BAO_CACERT"
# A variable of Vault counts if the one of OpenBao is not set.
MOUNT: Final = "BAO_MOUNT"
FALLBACKS: Final = {f"VAULT_{name.removeprefix('BAO_')}": name for name in (ADDRESS, TOKEN, NAMESPACE, AUTHORITIES)}
OURS: Final = frozenset({ADDRESS, TOKEN, ROLE_ID, SECRET_ID, NAMESPACE, AUTHORITIES, MOUNT, *FALLBACKS})
CREDENTIALS: Final = (TOKEN, SECRET_ID, "VAULT_TOKEN")  # each may be in a file, and none stays in the environment

_ADDRESS: Final = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]+)*/?"
)


def is_used(environ: Mapping[str, str]) -> bool:
    """Return whether these variables name OpenBao as a store or as the KMS."""
    stores = f"{environ.get('SECRETS_PROVIDER', '')},{environ.get('SECRETS_ALSO_READ', '')}"
    return "openbao" in [name.strip() for name in stores.split(",")] or environ.get("SECRETS_KMS", "").startswith(
        "openbao:"
    )


def address(text: str) -> str:
    """Return the address without a slash at its end. Raises `ValueError`, without the text."""
    if _ADDRESS.fullmatch(text) is None:
        raise ValueError
    return text.rstrip("/")


def authorities(path: str) -> str:
    """Return the certificates of a PEM file. Raises a problem."""
    return egress.certificates(path, AUTHORITIES)


def token(text: str) -> SecretMaterial:
    """Return the token, or the secret id. Raises `ValueError` if it cannot be a header."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return SecretMaterial(text.encode())


def require_private(value: str | None, info: ValidationInfo) -> None:
    """Raise a problem if a token would travel unencrypted in production."""
    if value is None or is_protected(value):
        return
    if info.data.get("environment") is Environment.PRODUCTION:
        raise problem(f"{ADDRESS} may be http in production only for an address of this machine: use https")


def server(
    *,
    address: str | None,
    token: SecretMaterial | None,
    role: tuple[str | None, SecretMaterial | None],
    namespace: str | None,
    authorities: str | None,
    read_again: Callable[[], SecretMaterial] | None,
) -> tuple[OpenBaoServer | None, list[str]]:
    """Return the server of these values, and the problems of how they fit together."""
    problems = [] if address else [f"{ADDRESS} is not set: it must be https://HOST:PORT of OpenBao or Vault"]
    role_id, secret_id = role
    if token is not None and (role_id or secret_id):
        problems.append(f"{TOKEN} and {ROLE_ID} or {SECRET_ID} are both set: use the token, or the login by AppRole")
    elif token is None and (role_id is None or secret_id is None):
        problems.append(
            f"OpenBao needs {TOKEN}, or both {ROLE_ID} and {SECRET_ID}: set them, preferably by their _FILE"
        )
    if problems or address is None:
        return None, problems
    credentials = (
        token if token is not None else AppRole(role_id=role_id or "", secret_id=secret_id or SecretMaterial(b""))
    )
    return (
        OpenBaoServer(
            address=address,
            credentials=credentials,
            read_again=read_again,
            namespace=namespace,
            authorities=authorities,
        ),
        [],
    )
