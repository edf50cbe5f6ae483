"""The integrity key of the installation, and what it vouches for in an endpoint row (design, law 11)."""

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import SecretTampered
from hookseal.secrets.framing import framed
from hookseal.secrets.material import SecretMaterial

_LABEL: Final = b"hookseal.endpoint.pointer.v1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityKey:
    """One version of the integrity key. Its id is that version's number, as text: `1` for the first."""

    key_id: str
    material: SecretMaterial

    def mac(self, pointer: Pointer) -> bytes:
        """Return the HMAC-SHA256 over every field of the pointer but `previous_due` and the MAC's own two."""
        return hmac.digest(self.material.reveal(), _written(pointer), "sha256")

    def verify(self, pointer: Pointer) -> None:
        """Return only if the pointer is as it was when its MAC was made with this key. Raises `SecretTampered`."""
        if pointer.mac is None:
            raise SecretTampered("the endpoint row has no MAC")
        if pointer.mac_key_id != self.key_id:
            raise SecretTampered("the MAC of the endpoint row names an integrity key that is not known")
        if not hmac.compare_digest(self.mac(pointer), pointer.mac):
            raise SecretTampered("the endpoint row was altered: its MAC does not match")


def _written(pointer: Pointer) -> bytes:
    return framed(
        _LABEL,
        pointer.tenant_id.encode(),
        pointer.endpoint_id.encode(),
        pointer.url.encode(),
        pointer.scheme.encode(),
        pointer.algorithm.encode(),
        _text(pointer.secret_ref),
        _text(pointer.previous_secret_ref),
        _microseconds(pointer.previous_secret_expires_at),
        pointer.lead.encode(),
        b"%d" % pointer.generation,
    )


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _microseconds(moment: datetime | None) -> bytes | None:
    if moment is None:
        return None
    if moment.tzinfo is None:  # so asyncpg gives an expiry that was set to infinity by hand
        moment = moment.replace(tzinfo=UTC)
    return b"%d" % ((moment - _EPOCH) // _MICROSECOND)
