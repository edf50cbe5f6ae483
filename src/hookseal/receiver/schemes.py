"""The accepted schemes, the preferred one first."""

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from hookseal.errors import MalformedHeader, MissingHeader, NoMatchingSignature, UnusableSecret
from hookseal.ground.wire import Scheme, signed_content, x_webhook_content
from hookseal.receiver import ed25519
from hookseal.receiver.ed25519 import is_public_key

_UNIX_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,14}")
# With a dot in the id, the beginning of a signed body could pass as the time.
_ID: Final = re.compile(r"[!-\-/-~]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The header names of a scheme; a match in any of `signatures` is enough."""

    delivery_id: str
    timestamp: str
    signatures: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """All header names of the scheme."""
        return self.signatures | {self.delivery_id, self.timestamp}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureMatch:
    """A matching signature: the signed delivery id and time, and the number of the secret, counted from 1."""

    delivery_id: str
    timestamp: int
    secret_number: int


def header(received: Mapping[str, str], name: str) -> str:
    """Return the header. Raises `MissingHeader`."""
    if name not in received:
        raise MissingHeader(f"{name} is missing")
    return received[name]


def delivery_id(received: Mapping[str, str], name: str) -> str:
    """Return the delivery id in that header. Raises `MissingHeader`, `MalformedHeader`."""
    text = header(received, name)
    if not _ID.fullmatch(text):
        raise MalformedHeader(f"{name} must be 1 to 256 visible ASCII characters without a dot")
    return text


def unix_seconds(received: Mapping[str, str], name: str) -> int:
    """Return the time in that header. Raises `MissingHeader`, `MalformedHeader`."""
    text = header(received, name)
    if not _UNIX_SECONDS.fullmatch(text):
        raise MalformedHeader(f"{name} must be whole unix seconds")
    return int(text)


def encode_signatures(signatures: Iterable[str]) -> list[bytes]:
    """Return signatures as bytes: text beyond ASCII cannot be compared in constant time."""
    return [signature.encode("utf-8", "surrogatepass") for signature in signatures]


def matches_any(
    key: bytes, content: bytes, signatures: Iterable[bytes], *, format_signature: Callable[[bytes], str]
) -> bool:
    """Return whether one of the signatures is the key's HMAC-SHA256, compared in constant time.

    `format_signature` writes a digest as the scheme does.
    """
    expected = format_signature(hmac.digest(key, content, "sha256")).encode("ascii")
    return any(hmac.compare_digest(expected, candidate) for candidate in signatures)


def matching_secret(secrets: Sequence[str], is_signed_with: Callable[[str], bool | None]) -> int:
    """Return the number, from 1, of the first secret that signed the request.

    `is_signed_with` returns None for a text that cannot be a secret of the scheme. Raises `UnusableSecret` if all are
    such texts, `NoMatchingSignature`.
    """
    is_any_usable = False
    for number, secret in enumerate(secrets, 1):
        answer = is_signed_with(secret)
        if answer:
            return number
        is_any_usable = is_any_usable or answer is not None
    if not is_any_usable:
        raise UnusableSecret("none of the secrets has the form that the scheme of this request needs")
    raise NoMatchingSignature


STANDARD_NAMES: Final = Names(
    delivery_id="webhook-id", timestamp="webhook-timestamp", signatures=frozenset({"webhook-signature"})
)
SVIX_NAMES: Final = Names(delivery_id="svix-id", timestamp="svix-timestamp", signatures=frozenset({"svix-signature"}))
# Each costs a verification, and anybody can send them without knowing a secret.
MAX_ASYMMETRIC: Final = 16
_PREFIX: Final = "whsec_"
_MIN_KEY_BYTES: Final = 24  # Standard Webhooks 1.0.0, "Signature scheme": a short key can be guessed
_VERSION: Final = "v1,"


def match_standard(
    body: bytes, received: Mapping[str, str], secrets: Sequence[str], *, names: Names = STANDARD_NAMES
) -> SignatureMatch:
    """Return the match of a `v1` or `v1a` signature with one of the secrets. Raises `VerificationError`."""
    delivery = delivery_id(received, names.delivery_id)
    timestamp = unix_seconds(received, names.timestamp)
    content = signed_content(delivery, timestamp, body)
    [signature] = names.signatures
    entries = header(received, signature).split(" ")
    symmetric = encode_signatures(entry for entry in entries if entry.startswith(_VERSION))
    asymmetric = ed25519.parse_signatures(entries)
    _require_same_kind(secrets, symmetric, asymmetric, name=signature)

    def is_signed_with(secret: str) -> bool | None:
        if ed25519.is_public_key(secret):
            return ed25519.verifies_any(secret, content, asymmetric)
        key = _key(secret)
        return None if key is None else matches_any(key, content, symmetric, format_signature=_format_signature)

    return SignatureMatch(
        delivery_id=delivery, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with)
    )


def _require_same_kind(
    secrets: Sequence[str], symmetric: Sequence[bytes], asymmetric: Sequence[bytes], *, name: str
) -> None:
    """Raise unless the request has a signature of a kind that one of the secrets can make."""
    public = sum(ed25519.is_public_key(secret) for secret in secrets)
    if public and len(asymmetric) > MAX_ASYMMETRIC:
        raise MalformedHeader(f"{name} must hold at most {MAX_ASYMMETRIC} signatures of v1a")
    if not symmetric and not asymmetric:
        raise NoMatchingSignature("the request has no signature of a kind that this verifier knows")
    if not symmetric and not public:
        raise NoMatchingSignature(
            "the request is signed with ed25519 only (v1a): pass the endpoint's public key (whpk_)"
        )
    if not asymmetric and public == len(secrets):
        raise NoMatchingSignature("the request is signed with HMAC only (v1): pass the endpoint's secret (whsec_)")


def _format_signature(digest: bytes) -> str:
    return _VERSION + base64.b64encode(digest).decode("ascii")


def _key(secret: str) -> bytes | None:
    """Return the decoded base64, with or without prefix and padding; None if it is not a key of the scheme."""
    digits = secret.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        return None
    return key if len(key) >= _MIN_KEY_BYTES else None


X_WEBHOOK_NAMES: Final = Names(
    delivery_id="x-webhook-delivery-id",
    timestamp="x-webhook-timestamp",
    signatures=frozenset({"x-webhook-signature", "x-webhook-signature-current", "x-webhook-signature-previous"}),
)


def match_x_webhook(body: bytes, received: Mapping[str, str], secrets: Sequence[str]) -> SignatureMatch:
    """Return the match of a signature with one of the secrets. Raises `VerificationError`."""
    delivery = delivery_id(received, X_WEBHOOK_NAMES.delivery_id)
    timestamp = unix_seconds(received, X_WEBHOOK_NAMES.timestamp)
    content = x_webhook_content(timestamp, body)
    signatures = encode_signatures(value for name, value in received.items() if name in X_WEBHOOK_NAMES.signatures)

    def is_signed_with(secret: str) -> bool | None:
        if is_public_key(secret):  # used as HMAC key, the public text would let anybody sign
            return None
        # The key is the bytes of the whole text, including its prefix.
        return matches_any(
            secret.encode("utf-8", "surrogatepass"),
            content,
            signatures,
            format_signature=_format_signature_of_x_webhook,
        )

    return SignatureMatch(
        delivery_id=delivery, timestamp=timestamp, secret_number=matching_secret(secrets, is_signed_with)
    )


def _format_signature_of_x_webhook(digest: bytes) -> str:
    return f"sha256={digest.hex()}"


SCHEMES: Final = (
    (Scheme.STANDARD, STANDARD_NAMES, match_standard),
    (Scheme.SVIX, SVIX_NAMES, partial(match_standard, names=SVIX_NAMES)),
    (Scheme.X_WEBHOOK, X_WEBHOOK_NAMES, match_x_webhook),
)
