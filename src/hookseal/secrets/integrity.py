"""The integrity key of the installation, and what it vouches for in an endpoint row (design, law 11)."""

import hmac
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from hookseal.ground.errors import Defect
from hookseal.ground.framing import framed, microseconds
from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import IntegrityKeyUnknown, SecretRolledBack, SecretTampered
from hookseal.secrets.material import SecretMaterial

_LABEL: Final = b"hookseal.endpoint.pointer.v1"
_MEND: Final = "put back what it was, then run `hookseal secret cache-clear` (runbook, HooksealSecretRefused)"
_NONE: Final[Mapping[str, SecretMaterial]] = MappingProxyType({})
_NO_MAC: Final = (
    "the endpoint row has no MAC, so hookseal did not write it: if it holds the plaintext of an older system, run "
    "`hookseal migrate-secrets`, else delete the endpoint and add it again (runbook, HooksealPlaintextSecrets)"
)


class IntegrityKey:
    """The integrity key in all its versions: the newest one authenticates, older ones verify only.

    The id of a version is its number, as text: `1` for the first. A version that is learned later is adopted
    by everybody who holds the key.
    """

    __slots__ = ("_newest", "_versions")

    def __init__(self, *, key_id: str, material: SecretMaterial, older: Mapping[str, SecretMaterial] = _NONE) -> None:
        self._versions = {**older, key_id: material}
        self._newest = key_id

    @property
    def key_id(self) -> str:
        """The id of the version that authenticates."""
        return self._newest

    def adopt(self, key_id: str, material: SecretMaterial) -> None:
        """Know that version, too; it authenticates from now on if it is newer than all others."""
        self._versions[key_id] = material
        self._newest = max(self._versions, key=int)

    def make_under(self, key_id: str) -> None:
        """Authenticate under that version, which must be known, from now on: it is the newest that the store has."""
        if not self.knows(key_id):
            raise Defect("an integrity key authenticates under a version that it knows")
        self._newest = key_id

    def keep_only(self, key_ids: Collection[str]) -> None:
        """Forget every other version; what those made is not verified any more. One of these must be known."""
        kept = {key_id: material for key_id, material in self._versions.items() if key_id in key_ids}
        self._newest = max(kept, key=int)
        self._versions = kept

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC that names this id can be verified."""
        return key_id in self._versions

    def authenticate(self, message: bytes, *, under: str | None = None) -> bytes:
        """Return the HMAC-SHA256 of the message, which must be framed and begin with a label of its kind.

        It is made under the newest version, or that one, which must be known: what was kept under it is compared so.
        """
        return self._digest(under or self._newest, message)

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under the version of that id; False if it is not known."""
        return self.knows(key_id) and hmac.compare_digest(self._digest(key_id, message), mac)

    def mac(self, pointer: Pointer) -> bytes:
        """Return the HMAC-SHA256 over every field of the pointer that it covers (`Pointer` says which)."""
        return self.authenticate(_written(pointer))

    def verify(self, pointer: Pointer) -> None:
        """Return only if the pointer is as it was when its MAC was made, and the newest that the audit log knows.

        Raises `SecretTampered`, as `IntegrityKeyUnknown` if the MAC names a version that is not known, and as
        `SecretRolledBack` if the row was put back.
        """
        if pointer.mac is None:
            raise SecretTampered(_NO_MAC)
        if pointer.mac_key_id is None or not self.knows(pointer.mac_key_id):
            raise IntegrityKeyUnknown(f"the MAC of the endpoint row names an integrity key that is not known: {_MEND}")
        if not self.is_authentic(_written(pointer), pointer.mac, pointer.mac_key_id):
            raise SecretTampered(f"the endpoint row was altered, its MAC does not match: {_MEND}")
        if pointer.audited_generation is not None and pointer.generation < pointer.audited_generation:
            raise rolled_back(pointer.generation, pointer.audited_generation, "the audit log")

    def __repr__(self) -> str:
        return f"IntegrityKey({self._newest})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def _digest(self, key_id: str, message: bytes) -> bytes:
        return hmac.digest(self._versions[key_id].reveal(), message, "sha256")


def rolled_back(found: int, known: int, who: str) -> SecretRolledBack:
    """Return the error of a row that is of an older generation than is known, and by whom."""
    return SecretRolledBack(
        f"the endpoint row was put back to generation {found}, {who} knows {known}: "
        "find out by whom, and if it is lawful run `hookseal restore accept --head FILE` (runbook, HooksealRolledBack)"
    )


def _written(pointer: Pointer) -> bytes:
    expires_at = pointer.previous_secret_expires_at
    parts = [
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
    ]
    # What an older version did not write is left out where it says nothing: its rows keep the MAC that they have.
    if pointer.previous_secret_ref is not None:
        parts += [_text(pointer.previous_scheme), _text(pointer.previous_algorithm)]
    if pointer.headers_ref is not None or pointer.tls_ref is not None:
        parts.append(_text(pointer.headers_ref))
    if pointer.tls_ref is not None:
        parts.append(pointer.tls_ref.encode())
    return framed(*parts)


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
