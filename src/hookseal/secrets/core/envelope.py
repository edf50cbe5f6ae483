"""The envelope: one sealed record for each secret version (docs/CANONICAL/SECRETS.md has the table of fields).

A fresh data key seals the secret, and a key derived from the master key seals the data key. Both levels commit to their
key, and bind the context (tenant, name, version, purpose) twice: in the derivation, so that a wrong context and an
altered record raise different errors, and as associated data. The data level does not name the master key, so a
re-wrap leaves it unchanged.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookseal.errors import ContextMismatch, Defect, Malformed, RecordMalformed, RecordTampered
from hookseal.ground.wire import framed
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey, derived
from hookseal.secrets.core.material import MAX_BYTES, SecretMaterial
from hookseal.secrets.core.ref import SecretContext

OVERHEAD_BYTES: Final = 226
HEAD_BYTES: Final = 134  # the part of a record that depends on the master key: a re-wrap replaces it

_HEAD: Final = b"\x01\x01"  # version 1, suite 1: HKDF-SHA256 and AES-256-GCM, committing
_WRAP_LABEL: Final = b"hookseal.secret.wrap.v1"
_DATA_LABEL: Final = b"hookseal.secret.data.v1"
_KEY_ID: Final = slice(2, 10)
_WRAP_AT: Final = 10
_DATA_AT: Final = HEAD_BYTES
_SALT_BYTES: Final = 32
_COMMIT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_DERIVED_BYTES: Final = KEY_BYTES + _COMMIT_BYTES

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """One of the two levels of a record."""

    salt: bytes
    commit: bytes
    nonce: bytes
    ciphertext: bytes

    @classmethod
    def read(cls, text: bytes) -> "_Level":
        commit_at, nonce_at = _SALT_BYTES, _SALT_BYTES + _COMMIT_BYTES
        text_at = nonce_at + _NONCE_BYTES
        return cls(
            salt=text[:commit_at],
            commit=text[commit_at:nonce_at],
            nonce=text[nonce_at:text_at],
            ciphertext=text[text_at:],
        )

    def encoded(self) -> bytes:
        return self.salt + self.commit + self.nonce + self.ciphertext


def seal(keyring: KeyRing, material: SecretMaterial, context: SecretContext) -> bytes:
    """Return a record that opens only with the sealing key of the keyring and in this context.

    Raises `Malformed` if the secret is empty or longer than 64 KiB.
    """
    return _seal_with(keyring, material, context, random_bytes=os.urandom)


def open_sealed(keyring: KeyRing, sealed: bytes, context: SecretContext) -> SecretMaterial:
    """Return the secret of the record.

    Raises `RecordMalformed`, `KeyUnknown`, `KeyRetired`, `ContextMismatch` or `RecordTampered`.
    """
    key = keyring.opening(key_id_of(sealed))
    bound = context.encode()
    data_key = _unwrapped(key, sealed[:_DATA_AT], bound, _info(_WRAP_LABEL, bound))
    data = _Level.read(sealed[_DATA_AT:])
    sealing = derived(data_key, _DERIVED_BYTES, salt=data.salt, info=_info(_DATA_LABEL, bound))
    return SecretMaterial(_open_level(sealing, data, _associated(_HEAD, data.salt, data.commit, bound)))


def rewrapped(keyring: KeyRing, head: bytes, context: SecretContext, *, of: str) -> bytes:
    """Return the head of a record, its first `HEAD_BYTES`, re-wrapped under the sealing key. `of` is its present key.

    The rest of the record stays as it is and is not needed, so no secret is opened. The new head was opened once, and
    gave the same data key. Raises as `open_sealed` does, and `RecordTampered` if the head names another key than `of`.
    """
    if _named_key(head) != of:
        raise RecordTampered
    key, bound = keyring.opening(of), context.encode()
    info = _info(_WRAP_LABEL, bound)
    data_key = _unwrapped(key, head, bound, info)
    new_head = _wrapped(keyring.sealing, data_key, bound, info, random_bytes=os.urandom)
    if not hmac.compare_digest(_unwrapped(keyring.sealing, new_head, bound, info), data_key):
        raise Defect("a re-wrapped record does not open to its data key")
    return new_head


def key_id_of(sealed: bytes) -> str:
    """Return the id of the master key that the record names. Raises `RecordMalformed`."""
    if not OVERHEAD_BYTES < len(sealed) <= OVERHEAD_BYTES + MAX_BYTES:
        raise RecordMalformed("the sealed record is too short or too long")
    return _named_key(sealed[:_DATA_AT])


def _named_key(head: bytes) -> str:
    if len(head) != _DATA_AT:
        raise RecordMalformed("the sealed record is too short")
    if not head.startswith(_HEAD):
        raise RecordMalformed("the sealed record is of a version or suite that this hookseal does not know")
    return head[_KEY_ID].hex()


def _seal_with(
    keyring: KeyRing, material: SecretMaterial, context: SecretContext, *, random_bytes: RandomBytes
) -> bytes:
    """Seal. `random_bytes` is called for, in this order: data key, data salt, data nonce, wrap salt, wrap nonce."""
    if not 1 <= len(material) <= MAX_BYTES:
        raise Malformed(f"a secret must have 1 to {MAX_BYTES} bytes", field="secret")
    bound = context.encode()
    data_key, data_salt = random_bytes(KEY_BYTES), random_bytes(_SALT_BYTES)
    sealing = derived(data_key, _DERIVED_BYTES, salt=data_salt, info=_info(_DATA_LABEL, bound))
    data = _seal_level(sealing, data_salt, random_bytes(_NONCE_BYTES), material.reveal(), prefix=_HEAD, bound=bound)
    info = _info(_WRAP_LABEL, bound)
    return _wrapped(keyring.sealing, data_key, bound, info, random_bytes=random_bytes) + data.encoded()


def _wrapped(key: MasterKey, data_key: bytes, bound: bytes, info: bytes, *, random_bytes: RandomBytes) -> bytes:
    prefix, salt = _HEAD + bytes.fromhex(key.key_id), random_bytes(_SALT_BYTES)
    wrapping = key.derive(_DERIVED_BYTES, salt=salt, info=info)
    wrap = _seal_level(wrapping, salt, random_bytes(_NONCE_BYTES), data_key, prefix=prefix, bound=bound)
    return prefix + wrap.encoded()


def _unwrapped(key: MasterKey, head: bytes, bound: bytes, info: bytes) -> bytes:
    prefix, wrap = head[:_WRAP_AT], _Level.read(head[_WRAP_AT:])
    wrapping = key.derive(_DERIVED_BYTES, salt=wrap.salt, info=info)
    return _open_level(wrapping, wrap, _associated(prefix, wrap.salt, wrap.commit, bound))


def _seal_level(key: bytes, salt: bytes, nonce: bytes, plain: bytes, *, prefix: bytes, bound: bytes) -> _Level:
    commit = key[KEY_BYTES:]
    ciphertext = AESGCM(key[:KEY_BYTES]).encrypt(nonce, plain, _associated(prefix, salt, commit, bound))
    return _Level(salt=salt, commit=commit, nonce=nonce, ciphertext=ciphertext)


def _open_level(key: bytes, level: _Level, associated: bytes) -> bytes:
    """Open one level with its derived key: 32 bytes to decrypt with, then the 32 bytes of the commitment."""
    if not hmac.compare_digest(key[KEY_BYTES:], level.commit):
        raise ContextMismatch
    try:
        return AESGCM(key[:KEY_BYTES]).decrypt(level.nonce, level.ciphertext, associated)
    except InvalidTag:
        raise RecordTampered from None


def _info(label: bytes, bound: bytes) -> bytes:
    return framed(label, hashlib.sha256(bound).digest())


def _associated(prefix: bytes, salt: bytes, commit: bytes, bound: bytes) -> bytes:
    return prefix + salt + commit + bound
