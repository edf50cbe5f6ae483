"""Signs the tokens of the HTTP API, so that nobody without the integrity key makes or changes one. Pure.

It is a signature and no MAC: a process that only reads and publishes verifies it without a key that could make one.
"""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hookseal.ground.wire import framed, microseconds
from hookseal.secrets.core.trust import IntegrityKey

_LABEL: Final = b"hookseal.api.token.v1"
_SEED_LABEL: Final = b"hookseal.api.token.key.v1"
# Everything that a token grants, or that decides whether it is honoured. The audit log shows that it was revoked.
_COVERED: Final = (
    *("signature_key_id", "tenant_id", "token_id", "name", "digest", "scopes", "created_at", "expires_at", "portal"),
    *("user", "session_id", "refresh_url", "code_digest", "code_spent_at", "made_of", "generation"),
)
MOST_VERIFIED: Final = 10_000


class TokenSeal:
    """Signs tokens under the newest version of an integrity key, and verifies them.

    Without the key it only verifies, with the public keys that come with the rows. Of the tokens that were verified
    last, at most `MOST_VERIFIED`, it remembers what was signed: it does not verify the same again.
    """

    def __init__(self, key: IntegrityKey | None = None) -> None:
        self.key: Final = key
        self._public_keys: dict[str, bytes] = {}  # derived from the key, which is another object if a version changes
        self._verified: OrderedDict[str, tuple[object, ...]] = OrderedDict()

    def signed(self, token: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token with its signature. Raises `LookupError` without the key."""
        if self.key is None:
            raise LookupError("nobody signs a token without the integrity key")
        signed = {**token, "signature_key_id": self.key.key_id}
        return signed | {"signature": _private(self.key, self.key.key_id).sign(_message(signed))}

    def is_authentic(self, token: Mapping[str, Any]) -> bool:
        """Return whether the row is as it was signed. False too if the version of the key is not known."""
        public = self._public(token)
        if public is None:
            return False
        row = (public, token["signature"], *(token[name] for name in _COVERED))
        if self._verified.get(token["token_id"]) != row:
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(token["signature"], _message(token))
            except (InvalidSignature, ValueError):
                return False
            self._verified[token["token_id"]] = row
        self._verified.move_to_end(token["token_id"])
        if len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)
        return True

    def _public(self, token: Mapping[str, Any]) -> bytes | None:
        key_id: str = token["signature_key_id"]
        if self.key is None:
            published: bytes | None = token["public_key"]
            return published
        if key_id not in self._public_keys and self.key.knows(key_id):
            self._public_keys[key_id] = public_key(self.key, key_id)
        return self._public_keys.get(key_id)


def public_key(key: IntegrityKey, key_id: str) -> bytes:
    """Return the public key that verifies the tokens signed under that version, which must be known."""
    return _private(key, key_id).public_key().public_bytes_raw()


def _private(key: IntegrityKey, key_id: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key.authenticate(framed(_SEED_LABEL, key_id.encode()), under=key_id))


def _message(token: Mapping[str, Any]) -> bytes:
    return framed(_LABEL, *(_bytes(token[name]) for name in _COVERED))


def _bytes(value: str | bytes | datetime | int | list[str] | None) -> bytes | None:
    match value:
        case None | bytes():
            return value
        case str():
            return value.encode()
        case datetime():
            return b"%d" % microseconds(value)
        case list():
            return framed(*(each.encode() for each in value))
        case _:
            return b"%d" % value
