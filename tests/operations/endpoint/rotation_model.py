"""The expected behaviour of rotation, in plain Python: an endpoint, its versions, operations, answers, audit rows."""

import base64
import hmac
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hookseal.errors import Conflict, HooksealError, Malformed
from hookseal.ground.wire import Algorithm, Scheme

_PAIR: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
# Secrets that an operator may supply, each with the algorithm and schemes that it can sign for.
GIVEN: Final = {
    "key": b"whsec_" + base64.b64encode(b"k" * 32),
    "text": b"a text of more than sixteen bytes",
    "pair": b"whsk_" + base64.b64encode(bytes(32) + _PAIR.public_key().public_bytes_raw()),
}
_FITS: Final = {
    (Scheme.STANDARD, Algorithm.HMAC): {"key"},
    (Scheme.X_WEBHOOK, Algorithm.HMAC): {"key", "text"},
    (Scheme.STANDARD, Algorithm.ED25519): {"pair"},
}


def drawn_key() -> bytes:
    """Return a random HMAC secret."""
    return b"whsec_" + base64.b64encode(os.urandom(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """A requested rotation; `given` names one of `GIVEN`, else the secret is `drawn`, for HMAC."""

    overlap_seconds: int
    rotation_id: str | None = None
    expect: int | None = None
    scheme: Scheme | None = None
    algorithm: Algorithm | None = None
    lead: str | None = None
    force: bool = False
    given: str | None = None
    drawn: bytes = field(default_factory=drawn_key, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """A requested rollback."""

    overlap_seconds: int
    expect: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOverlap:
    """A requested end of the overlap."""

    expect: int | None = None


Operation = Rotate | RollBack | EndOverlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an operation answers. `fresh`: it moved the pointer. `shows`: the version whose secret is returned."""

    generation: int
    current: int
    previous: int | None
    expires_at: datetime | None
    fresh: bool = True
    shows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The operation is refused with this kind of error for this field, and changes nothing."""

    kind: type[HooksealError]
    about: str


class _Refused(Exception):
    """Carries a refusal to where it is answered."""

    def __init__(self, kind: type[HooksealError], about: str) -> None:
        super().__init__(kind, about)
        self.refusal = Refusal(kind=kind, about=about)


@dataclass(slots=True, kw_only=True)
class Version:
    """A version of the secret: its algorithm and text; None while a text that was drawn has not been returned."""

    scheme: Scheme
    algorithm: Algorithm
    text: bytes | None

    def signature(self, content: bytes) -> str:
        """Return the signature of this version for the content."""
        assert self.text is not None
        if self.algorithm is Algorithm.ED25519:
            seed = base64.b64decode(self.text.removeprefix(b"whsk_"))[:32]
            return "v1a," + base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(content)).decode()
        if self.scheme is Scheme.X_WEBHOOK:
            return "sha256=" + hmac.new(self.text, content, "sha256").hexdigest()
        key = base64.b64decode(self.text.removeprefix(b"whsec_"))
        return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerRow:
    """The endpoint row: the version numbers, and how each of the two signs."""

    generation: int
    current: tuple[int, str, str]
    previous: tuple[int, str, str] | None
    expires_at: datetime | None
    previous_due: bool
    lead: str


@dataclass(slots=True, kw_only=True)
class Model:
    """An endpoint with its first secret, at the time `now`."""

    now: datetime
    versions: dict[int, Version]
    generation: int = 1
    current: int = 1
    previous: int | None = None
    expires_at: datetime | None = None
    lead: str = "previous"
    answers: dict[str, tuple[Rotate, Answer]] = field(default_factory=dict)
    rotations: int = 0
    audited: list[tuple[str, int | None]] = field(default_factory=lambda: [("endpoint.added", 1)])

    def due(self) -> tuple[int, ...]:
        """Return the versions that a claim now signs with, current first."""
        if self.previous is None or self.expires_at is None or self.now >= self.expires_at:
            return (self.current,)
        return (self.current, self.previous)

    def row(self) -> PointerRow:
        """Return the expected row."""
        return PointerRow(
            generation=self.generation,
            current=self._how(self.current),
            previous=None if self.previous is None else self._how(self.previous),
            expires_at=self.expires_at,
            previous_due=len(self.due()) > 1,
            lead=self.lead,
        )

    def seconds_left(self) -> int | None:
        """Return the remaining seconds of the overlap, rounded up; None without an overlap."""
        if len(self.due()) == 1 or self.expires_at is None:
            return None
        return ceil((self.expires_at - self.now).total_seconds())

    def states(self) -> dict[int, str]:
        """Return the state of each version."""
        named = {self.current: "active", self.previous: "previous"}
        return {version: named.get(version, "retired") for version in self.versions}

    def do(self, operation: Operation) -> Answer | Refusal:
        """Apply the operation and return its answer or refusal."""
        try:
            return self._do(operation)
        except _Refused as error:
            return error.refusal

    def _do(self, operation: Operation) -> Answer:
        match operation:
            case Rotate():
                return self._rotate(operation)
            case RollBack():
                self._require_generation(operation.expect)
                return self._roll_back(operation)
            case EndOverlap():
                self._require_generation(operation.expect)
                if self.previous is None:
                    raise _Refused(Conflict, "endpoint")
                return self._move("secret.overlap_ended", self.current)

    def _how(self, number: int) -> tuple[int, str, str]:
        version = self.versions[number]
        return (number, version.scheme, version.algorithm)

    def _rotate(self, asked: Rotate) -> Answer:
        if asked.rotation_id in self.answers:
            return self._again(asked)
        self._require_generation(asked.expect)
        if len(self.due()) > 1 and asked.overlap_seconds and not asked.force:
            raise _Refused(Conflict, "endpoint")
        before = self.versions[self.current]
        how = (asked.scheme or before.scheme, asked.algorithm or before.algorithm)
        if how not in _FITS:
            raise _Refused(Malformed, "algorithm")
        if asked.given is not None and asked.given not in _FITS[how]:
            raise _Refused(Malformed, "secret")
        number = max(self.versions) + 1
        drawn = asked.drawn if how[1] is Algorithm.HMAC else None  # for ed25519 hookseal draws it itself
        text = drawn if asked.given is None else GIVEN[asked.given]
        self.versions[number] = Version(scheme=how[0], algorithm=how[1], text=text)
        self.lead = asked.lead or self.lead
        self.rotations += 1
        answer = self._move("secret.rotated", number, asked.overlap_seconds)
        answer = replace(answer, shows=how[1] is Algorithm.HMAC)
        if asked.rotation_id is not None:
            self.answers[asked.rotation_id] = (asked, answer)
        return answer

    def _again(self, asked: Rotate) -> Answer:
        first, answer = self.answers[asked.rotation_id or ""]
        if first != asked:
            raise _Refused(Conflict, "rotation_id")
        shows = answer.shows and answer.current == self.current
        if shows:
            self.audited.append(("secret.revealed", None))  # the answer omits a generation that the row cannot prove
        return replace(answer, fresh=False, shows=shows)

    def _roll_back(self, asked: RollBack) -> Answer:
        if len(self.due()) == 1 or self.previous is None:
            raise _Refused(Conflict, "endpoint")
        return self._move("secret.rolled_back", self.previous, asked.overlap_seconds)

    def _require_generation(self, expected: int | None) -> None:
        if expected is not None and expected != self.generation:
            raise _Refused(Conflict, "expect_generation")

    def _move(self, action: str, current: int, overlap_seconds: int = 0) -> Answer:
        """Move the pointer: the current version signs during the overlap, and any other older one no more."""
        self.previous = self.current if overlap_seconds else None
        self.expires_at = self.now + timedelta(seconds=overlap_seconds) if overlap_seconds else None
        self.current = current
        self.generation += 1
        self.audited.append((action, self.generation))
        return Answer(
            generation=self.generation, current=self.current, previous=self.previous, expires_at=self.expires_at
        )
