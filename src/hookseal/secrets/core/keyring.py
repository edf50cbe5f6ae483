"""Master keys, and the keyring that chooses which one seals or opens. A key is chosen by its id, never by trial."""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hookseal.errors import ConfigError, Defect, KeyRetired, KeyUnknown, Malformed
from hookseal.secrets.core.material import SecretMaterial

KEY_BYTES: Final = 32
_SHA256: Final = SHA256()
_ID: Final = re.compile(r"[0-9a-f]{16}")
_SPELLING: Final = re.compile(r"(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}")
_EXPECTED: Final = "32 random bytes in base64, for instance from `openssl rand -base64 32`"
_ID_LABEL: Final = b"hookseal.master-key.id.v1"
_CHECK_LABEL: Final = b"hookseal.master-key.check.v1"
_ID_BYTES: Final = 8
_CHECK_BYTES: Final = 8
_LONGEST_PERIOD: Final = KEY_BYTES // 2


def require_key_id(text: str) -> str:
    """Return the id of a master key if it has its form. Raises `Malformed`."""
    if not _ID.fullmatch(text):
        raise Malformed(
            "a master-key id has 16 lowercase hex digits", advice="see `hookseal key status`", field="key_id"
        )
    return text


def derived(key: bytes, length: int, *, salt: bytes | None, info: bytes) -> bytes:
    """Return `length` bytes of HKDF-SHA256 from the key; another salt or info gives other bytes."""
    return HKDF(_SHA256, length, salt, info).derive(key)


class MasterKey:
    """One master key. Its id and its check value are derived from it and may be shown; the key may not."""

    __slots__ = ("_check_value", "_key_id", "_material")

    def __init__(self, material: SecretMaterial) -> None:
        if len(material) != KEY_BYTES:
            raise Defect("a master key has 32 bytes")
        self._material = material
        self._key_id = self.derive(_ID_BYTES, salt=None, info=_ID_LABEL).hex()
        self._check_value = self.derive(_CHECK_BYTES, salt=None, info=_CHECK_LABEL)

    @classmethod
    def parse(cls, text: str, *, variable: str) -> "MasterKey":
        """Return the key of a text in standard or URL-safe base64, padded or not.

        Raises `ConfigError`, which names the variable and the expected form, never the value.
        """
        value = _decoded(text.strip())
        if value is None or len(value) != KEY_BYTES:
            raise ConfigError(f"{variable}: must be {_EXPECTED}", field=variable)
        if _is_placeholder(value):
            raise ConfigError(f"{variable}: looks like a placeholder; must be {_EXPECTED}", field=variable)
        return cls(SecretMaterial(value))

    @property
    def key_id(self) -> str:
        """The id of the key in records and in the table of keys: 16 lower-case hex digits."""
        return self._key_id

    @property
    def check_value(self) -> bytes:
        """Eight bytes that prove at start that this is the key that was registered under its id."""
        return self._check_value

    @property
    def material(self) -> SecretMaterial:
        """The key itself, for a KMS that wraps it and for a child process of this one."""
        return self._material

    def derive(self, length: int, *, salt: bytes | None, info: bytes) -> bytes:
        """Return that many bytes derived from the key under a salt and a label."""
        return derived(self._material.reveal(), length, salt=salt, info=info)

    def is_same_key(self, other: "MasterKey") -> bool:
        """Return, in constant time, whether both are the same key."""
        return self._material == other._material  # noqa: SLF001

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a master key is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a master key is neither copied nor pickled")


class KeyRing:
    """The master keys of this process: one seals, and all open unless their id is retired."""

    __slots__ = ("_keys", "_retired", "_sealing")

    def __init__(self, sealing: MasterKey, opening: tuple[MasterKey, ...] = (), *, retired: Iterable[str] = ()) -> None:
        self._sealing = sealing
        self._keys = _by_id((sealing, *opening))
        self._retired = frozenset(retired)

    @property
    def sealing(self) -> MasterKey:
        """The key that seals new records."""
        return self._sealing

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        """All keys of the keyring, the sealing one first, each once."""
        return tuple(self._keys.values())

    def opening(self, key_id: str) -> MasterKey:
        """Return the key of that id. Raises `KeyRetired` if it is retired, `KeyUnknown` if it is not in the keyring."""
        if key_id in self._retired:
            raise KeyRetired(f"master key {key_id} is retired: it opens nothing any more")
        key = self._keys.get(key_id)
        if key is None:
            raise KeyUnknown(f"master key {key_id} is not among the keys of this process")
        return key

    def sealing_as(self, key_id: str) -> "KeyRing":
        """Return this keyring with that key sealing. Raises `KeyUnknown` if it is not in it, and `KeyRetired`."""
        return self if key_id == self._sealing.key_id else self.arranged(sealing=key_id, retired=self._retired)

    def arranged(self, *, sealing: str, retired: Iterable[str]) -> "KeyRing":
        """Return a keyring of the same keys in which `sealing` seals and the `retired` ids open nothing.

        Raises `KeyUnknown` if the sealing key is not in the keyring, and `KeyRetired` if it is retired.
        """
        refused = frozenset(retired)
        key = KeyRing(self._sealing, self.keys, retired=refused).opening(sealing)
        return KeyRing(key, self.keys, retired=refused)


def _by_id(keys: tuple[MasterKey, ...]) -> dict[str, MasterKey]:
    keys_by_id: dict[str, MasterKey] = {}
    for key in keys:
        if not keys_by_id.setdefault(key.key_id, key).is_same_key(key):
            raise ConfigError(f"two different master keys have the id {key.key_id}: replace one of them")
    return keys_by_id


def _decoded(text: str) -> bytes | None:
    """Return the bytes of the base64 text, None if it is not canonical base64."""
    if not _SPELLING.fullmatch(text):
        return None
    digits = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    padded = digits + "=" * (-len(digits) % 4)
    if len(text) not in (len(digits), len(padded)):
        return None
    try:
        value = base64.b64decode(padded, validate=True)
    except binascii.Error:
        return None
    return value if base64.b64encode(value).decode("ascii") == padded else None


def _is_placeholder(value: bytes) -> bool:
    """Return whether the key is readable text, or repeats a short run of bytes."""
    readable = value.isascii() and value.decode("ascii").isprintable()
    repeated = any(value[period:] == value[:-period] for period in range(1, _LONGEST_PERIOD + 1))
    return readable or repeated
