"""The integrity key of the installation, and the MAC that it makes over an endpoint row."""

import hmac
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from hookseal.ground.errors import Defect
from hookseal.ground.framing import framed, microseconds
from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import IntegrityKeyUnknown, SecretTampered, StaleRow
from hookseal.secrets.material import SecretMaterial

_LABEL: Final = b"hookseal.endpoint.pointer.v1"
_REPAIR: Final = "restore what it was, then run `hookseal secret cache-clear` (runbook, HooksealSecretRefused)"
_NONE: Final[Mapping[str, SecretMaterial]] = MappingProxyType({})
_NO_MAC: Final = (
    "the endpoint row has no MAC, so hookseal did not write it: if it holds the plaintext of an older system, run "
    "`hookseal migrate-secrets`, else delete the endpoint and add it again (runbook, HooksealPlaintextSecrets)"
)


class IntegrityKey:
    """The integrity key in all its versions: the newest one makes MACs, older ones only verify them.

    The id of a version is its number, as text: `1` for the first. The object is shared, so a version that is adopted
    later is known wherever the key is used.
    """

    __slots__ = ("_newest", "_versions")

    def __init__(self, *, key_id: str, material: SecretMaterial, older: Mapping[str, SecretMaterial] = _NONE) -> None:
        self._versions = {**older, key_id: material}
        self._newest = key_id

    @property
    def key_id(self) -> str:
        """The id of the version that makes MACs."""
        return self._newest

    def adopt(self, key_id: str, material: SecretMaterial) -> None:
        """Add that version. It makes MACs from now on if it is the newest."""
        self._versions[key_id] = material
        self._newest = max(self._versions, key=int)

    def make_under(self, key_id: str) -> None:
        """Make MACs under that version from now on: it is the newest one in the store, and must be known."""
        if not self.knows(key_id):
            raise Defect("an integrity key makes MACs under a version that it knows")
        self._newest = key_id

    def keep_only(self, key_ids: Collection[str]) -> None:
        """Forget all other versions, and with them the MACs that they made. One of these must be known."""
        remaining = {key_id: material for key_id, material in self._versions.items() if key_id in key_ids}
        self._newest = max(remaining, key=int)
        self._versions = remaining

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC that names this id can be verified."""
        return key_id in self._versions

    def authenticate(self, message: bytes, *, under: str | None = None) -> bytes:
        """Return the HMAC-SHA256 of the message, which must be framed and begin with the label of its kind.

        It is made under the newest version; with `under` it is made under that version, which must be known, to compare
        it with an older one.
        """
        return self._digest(under or self._newest, message)

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under that version; False if it is not known."""
        return self.knows(key_id) and hmac.compare_digest(self._digest(key_id, message), mac)

    def mac(self, pointer: Pointer) -> bytes:
        """Return the HMAC-SHA256 over every field of the pointer that it covers (`Pointer` says which)."""
        return self.authenticate(_written(pointer))

    def verify(self, pointer: Pointer) -> None:
        """Raise `SecretTampered` unless the MAC matches the pointer, and the audit log knows no newer generation.

        It is an `IntegrityKeyUnknown` if the MAC names a version that is not known, and a `StaleRow` if the row was
        replaced by an older copy.
        """
        if pointer.mac is None:
            raise SecretTampered(_NO_MAC)
        if pointer.mac_key_id is None or not self.knows(pointer.mac_key_id):
            raise IntegrityKeyUnknown(
                f"the MAC of the endpoint row names an integrity key that is not known: {_REPAIR}"
            )
        if not self.is_authentic(_written(pointer), pointer.mac, pointer.mac_key_id):
            raise SecretTampered(f"the endpoint row was altered, its MAC does not match: {_REPAIR}")
        if pointer.audited_generation is not None and pointer.generation < pointer.audited_generation:
            raise stale_row(pointer.generation, pointer.audited_generation, "the audit log")

    def __repr__(self) -> str:
        return f"IntegrityKey({self._newest})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def _digest(self, key_id: str, message: bytes) -> bytes:
        return hmac.digest(self._versions[key_id].reveal(), message, "sha256")


def stale_row(found: int, known: int, who: str) -> StaleRow:
    """Return the error for a row of generation `found`, where `who` knows the higher generation `known`."""
    return StaleRow(
        f"the endpoint row is stale: it has generation {found}, {who} knows {known}; "
        "find out who put it there, and if it is lawful run `hookseal restore accept --head FILE` "
        "(runbook, HooksealStaleRow)"
    )


def _written(pointer: Pointer) -> bytes:
    expires_at = pointer.previous_secret_expires_at
    return framed(
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
        _text(pointer.previous_scheme),
        _text(pointer.previous_algorithm),
        _text(pointer.headers_ref),
        _text(pointer.tls_ref),
    )


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
