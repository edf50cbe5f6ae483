"""What a request says of itself, proven or not: for whoever looks into a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass

from hookseal.ground.wire import Scheme
from hookseal.receiver.errors import VerificationError
from hookseal.receiver.schemes import SCHEMES
from hookseal.receiver.signature import unix_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the headers say; None for what they do not say, or not in its form."""

    scheme: Scheme | None = None
    delivery_id: str | None = None
    timestamp: int | None = None


def stated(headers: Mapping[str, str]) -> Stated:
    """Return what the headers say of the request. Nothing of it is proven: act on `verify` only."""
    received = {name.lower(): value for name, value in headers.items()}
    for scheme, names, _ in SCHEMES:
        if not names.signatures.isdisjoint(received):
            try:
                timestamp = unix_seconds(received, names.timestamp)
            except VerificationError:
                timestamp = None
            return Stated(scheme=scheme, delivery_id=received.get(names.delivery_id), timestamp=timestamp)
    return Stated()
