"""What both schemes share: reading headers and comparing signatures."""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.receiver.errors import MalformedHeader, MissingHeader, NoMatchingSignature, UnusableSecret

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
