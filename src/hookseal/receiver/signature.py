"""What both schemes share: how a header is read, and how signatures are compared."""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.receiver.errors import MalformedHeader, MissingHeader, NoMatchingSignature, UnusableSecret

_UNIX_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,14}")
# A dot in an id would let a signed body's beginning pass for the time.
_ID: Final = re.compile(r"[!-\-/-~]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a scheme's headers; any of `signatures` may fit."""

    delivery_id: str
    timestamp: str
    signatures: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """Every name of them."""
        return self.signatures | {self.delivery_id, self.timestamp}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signature fits: whose, of when, and which of the secrets made it, counted from 1."""

    delivery_id: str
    timestamp: int
    secret_number: int


def header(received: Mapping[str, str], name: str) -> str:
    """Return the header. Raises `MissingHeader`."""
    if name not in received:
        raise MissingHeader(f"{name} is not there")
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


def candidates(given: Iterable[str]) -> list[bytes]:
    """Return signatures as bytes: text that is not ASCII cannot be compared in constant time."""
    return [signature.encode("utf-8", "surrogatepass") for signature in given]


def fits(key: bytes, content: bytes, given: Iterable[bytes], *, spelled: Callable[[bytes], str]) -> bool:
    """Return whether one of the given signatures is the key's HMAC-SHA256, compared in constant time.

    `spelled` writes a digest as the scheme does.
    """
    expected = spelled(hmac.digest(key, content, "sha256")).encode("ascii")
    return any(hmac.compare_digest(expected, candidate) for candidate in given)


def matching_secret(secrets: Sequence[str], is_signed_with: Callable[[str], bool | None]) -> int:
    """Return the number, from 1, of the first secret that the request is signed with.

    `is_signed_with` answers None for what cannot be a secret of the scheme. Raises `UnusableSecret` if none can,
    `NoMatchingSignature`.
    """
    is_any_usable = False
    for number, secret in enumerate(secrets, 1):
        answer = is_signed_with(secret)
        if answer:
            return number
        is_any_usable = is_any_usable or answer is not None
    if not is_any_usable:
        raise UnusableSecret("none of the secrets is spelled as the scheme of this request needs it")
    raise NoMatchingSignature
