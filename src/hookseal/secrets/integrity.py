"""The integrity key of the installation, and what it vouches for in an endpoint row (design, law 11)."""

import hmac
from dataclasses import dataclass
from typing import Final

from hookseal.ground.framing import framed, microseconds
from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import SecretTampered
from hookseal.secrets.material import SecretMaterial

_LABEL: Final = b"hookseal.endpoint.pointer.v1"
_MEND: Final = "put back what it was, then run `hookseal secret cache-clear` (runbook, HooksealSecretRefused)"
_NO_MAC: Final = (
    "the endpoint row has no MAC, so hookseal did not write it, and this version cannot take it over: "
    "delete the endpoint and add it again (runbook, HooksealPlaintextSecrets)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityKey:
    """One version of the integrity key. Its id is that version's number, as text: `1` for the first."""

    key_id: str
    material: SecretMaterial

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC that names this id can be verified."""
        return key_id == self.key_id

    def authenticate(self, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of the message, which must be framed and begin with a label of its kind."""
        return hmac.digest(self.material.reveal(), message, "sha256")

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under the key of that id; False for another id."""
        return self.knows(key_id) and hmac.compare_digest(self.authenticate(message), mac)

    def mac(self, pointer: Pointer) -> bytes:
        """Return the HMAC-SHA256 over every field of the pointer that it covers (`Pointer` says which)."""
        return self.authenticate(_written(pointer))

    def verify(self, pointer: Pointer) -> None:
        """Return only if the pointer is as it was when its MAC was made with this key. Raises `SecretTampered`."""
        if pointer.mac is None:
            raise SecretTampered(_NO_MAC)
        if pointer.mac_key_id is None or not self.knows(pointer.mac_key_id):
            raise SecretTampered(f"the MAC of the endpoint row names an integrity key that is not known: {_MEND}")
        if not self.is_authentic(_written(pointer), pointer.mac, pointer.mac_key_id):
            raise SecretTampered(f"the endpoint row was altered, its MAC does not match: {_MEND}")


def _written(pointer: Pointer) -> bytes:
    expires_at = pointer.previous_secret_expires_at
    parts = (
        _LABEL,
        pointer.tenant_id.encode(),
        pointer.endpoint_id.encode(),
        pointer.url.encode(),
        pointer.scheme.encode(),
        pointer.algorithm.encode(),
        _text(pointer.secret_ref),
        _text(pointer.previous_secret_ref),
        None if expires_at is None else b"%d" % microseconds(expires_at),
        pointer.lead.encode(),
        b"%d" % pointer.generation,
    )
    if pointer.previous_secret_ref is None:  # so rows of before there were rotations keep the MAC that they have
        return framed(*parts)
    return framed(*parts, _text(pointer.previous_scheme), _text(pointer.previous_algorithm))


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
