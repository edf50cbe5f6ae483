"""What the headers of a request claim, proven or not, to investigate a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass

from hookseal.errors import VerificationError
from hookseal.ground.wire import Scheme
from hookseal.receiver.schemes import SCHEMES, unix_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedHeaders:
    """The claims of the headers; None for what is missing, and for a malformed time.

    `delivery_id` is the text of its header, also if it is malformed: escape it before you show it.
    """

    scheme: Scheme | None = None
    delivery_id: str | None = None
    timestamp: int | None = None


def unverified_headers(headers: Mapping[str, str]) -> UnverifiedHeaders:
    """Return what the headers claim about the request. Nothing of it is proven: rely on `verify` only."""
    received = {name.lower(): value for name, value in headers.items()}
    for scheme, names, _ in SCHEMES:
        if not names.signatures.isdisjoint(received):
            try:
                timestamp = unix_seconds(received, names.timestamp)
            except VerificationError:
                timestamp = None
            return UnverifiedHeaders(scheme=scheme, delivery_id=received.get(names.delivery_id), timestamp=timestamp)
    return UnverifiedHeaders()
