"""What a ping of an endpoint has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hookseal.ground.literals import AlgorithmName, OutcomeName, SchemeName


@dataclass(frozen=True, slots=True, kw_only=True)
class PingAddress:
    """An address of the receiver's host name. One that is not `allowed` is not dialled; `reason` says why."""

    address: str
    allowed: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingTls:
    """The result of a TLS handshake, and the certificate of the receiver."""

    version: str | None
    cipher: str | None
    subject: str
    issuer: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """A ping as it was sent. Of the headers that the endpoint adds, `own_headers`, only the names are known."""

    headers: Mapping[str, str]
    own_headers: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedContent:
    """What one secret signed, the headers with the signature, and what a receiver computes to verify it."""

    secret_ref: str
    scheme: SchemeName
    algorithm: AlgorithmName
    content: str
    content_base64: str
    headers: Mapping[str, str]
    receiver_computes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PingAnswer:
    """The answer to a ping. `outcome` is one of docs/outcomes.md, None if the ping could not begin."""

    outcome: OutcomeName | None
    status: int | None
    duration_ms: int
    snippet: str | None = field(repr=False)
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A signed ping, how it reached the receiver, and the answer.

    If the host name could not be resolved, there are no `addresses`, and `addresses_error` says why. `dialled` is the
    address that was used, None if no request was sent.
    """

    tenant_id: str
    endpoint_id: str
    enabled: bool
    url: str = field(repr=False)
    addresses: tuple[PingAddress, ...]
    addresses_error: str | None
    dialled: str | None
    tls: PingTls | None
    request: PingRequest = field(repr=False)
    signed: tuple[SignedContent, ...] = field(repr=False)
    answer: PingAnswer

    @property
    def delivered(self) -> bool:
        """Whether the receiver answered with 2xx."""
        return self.answer.outcome == "delivered"

    @property
    def outcome(self) -> OutcomeName | None:
        """The outcome of the answer."""
        return self.answer.outcome

    @property
    def status(self) -> int | None:
        """The HTTP status of the answer."""
        return self.answer.status

    @property
    def detail(self) -> str | None:
        """What the answer means, in words."""
        return self.answer.detail

    @property
    def signed_by(self) -> tuple[str, ...]:
        """The references of the secrets that signed it."""
        return tuple(each.secret_ref for each in self.signed)
