"""What is audited: which change, of what, from what to what; and the key under which the log is chained."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hookseal.ground.ids import TenantId


class Action(StrEnum):
    """What was done."""

    ENDPOINT_ADDED = "endpoint.added"
    ENDPOINT_UPDATED = "endpoint.updated"
    ENDPOINT_ENABLED = "endpoint.enabled"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_DELETED = "endpoint.deleted"
    ENDPOINT_PROBED = "endpoint.probed"
    ENDPOINT_TESTED = "endpoint.tested"
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - what was done with one
    SECRET_ROLLED_BACK = "secret.rolled_back"  # noqa: S105 - the same
    SECRET_OVERLAP_ENDED = "secret.overlap_ended"  # noqa: S105 - the same
    SECRET_ROTATION_ANNOUNCED = "secret.rotation_announced"  # noqa: S105 - the same
    SECRET_REVEALED = "secret.revealed"  # noqa: S105 - the same
    SECRET_DESTROYED = "secret.destroyed"  # noqa: S105 - the same
    SECRET_DENIED = "secret.denied"  # noqa: S105 - the same
    SECRET_MIGRATED = "secret.migrated"  # noqa: S105 - the same
    PLAINTEXT_EMPTIED = "secret.plaintext_emptied"
    PLAINTEXT_FORBIDDEN = "secret.plaintext_forbidden"
    ROLLBACK_FOUND = "rollback.found"
    RESTORE_ACCEPTED = "restore.accepted"
    DELIVERY_REPLAYED = "delivery.replayed"
    PRODUCER_GRANTED = "producer.granted"
    PRODUCER_REVOKED = "producer.revoked"
    KEY_INITIALISED = "key.initialised"
    KEY_STAGED = "key.staged"
    KEY_PROMOTED = "key.promoted"
    KEY_REWRAPPED = "key.rewrapped"
    KEY_DRAINED = "key.drained"
    KEY_RETIRED = "key.retired"
    KEY_DESTROYED = "key.destroyed"
    KEY_COMPROMISED = "key.compromised"
    INTEGRITY_ROTATED = "integrity.rotated"
    CACHE_CLEARED = "cache.cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change as its audit row tells it. `subject` names what was changed, for instance `endpoint:{id}`.

    `before` and `after` are facts that anybody who reads the log may know, never a secret: refs, the
    generation, the host of a url. They hold what JSON can say, and times, which become RFC 3339.
    """

    tenant_id: TenantId
    action: Action
    subject: str
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    correlation_id: str | None = None


class ChainKey(Protocol):
    """The integrity key as the log sees it. What it is asked about begins with a label of the log's own."""

    @property
    def key_id(self) -> str:
        """The id of the version that authenticates new rows."""
        ...

    def knows(self, key_id: str) -> bool:
        """Return whether what was authenticated under this id can be verified."""
        ...

    def authenticate(self, message: bytes) -> bytes:
        """Return the MAC of the message under the version `key_id`."""
        ...

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under that version; False for one that is not known."""
        ...
