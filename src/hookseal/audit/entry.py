"""The content of an audit entry, and the key that authenticates the chain."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hookseal.ground.ids import TenantId


class Action(StrEnum):
    """The kind of the change."""

    ENDPOINT_ADDED = "endpoint.added"
    ENDPOINT_UPDATED = "endpoint.updated"
    ENDPOINT_ENABLED = "endpoint.enabled"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_DELETED = "endpoint.deleted"
    ENDPOINT_PROBE_REQUESTED = "endpoint.probe_requested"
    ENDPOINT_PROBED = "endpoint.probed"
    ENDPOINT_TESTED = "endpoint.tested"
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - the name of an action
    SECRET_ROLLED_BACK = "secret.rolled_back"  # noqa: S105 - the name of an action
    SECRET_OVERLAP_ENDED = "secret.overlap_ended"  # noqa: S105 - the name of an action
    SECRET_ROTATION_ANNOUNCED = "secret.rotation_announced"  # noqa: S105 - the name of an action
    SECRET_REVEALED = "secret.revealed"  # noqa: S105 - the name of an action
    SECRET_DESTROYED = "secret.destroyed"  # noqa: S105 - the name of an action
    SECRET_DENIED = "secret.denied"  # noqa: S105 - the name of an action
    SECRET_MIGRATED = "secret.migrated"  # noqa: S105 - the name of an action
    SECRET_MOVED = "secret.moved"  # noqa: S105 - the name of an action
    PLAINTEXT_EMPTIED = "secret.plaintext_emptied"
    PLAINTEXT_FORBIDDEN = "secret.plaintext_forbidden"
    STALE_FOUND = "stale.found"
    RESTORE_ACCEPTED = "restore.accepted"
    DELIVERY_REPLAYED = "delivery.replayed"
    DELIVERY_SKIPPED = "delivery.skipped"
    REPLAY_STARTED = "replay.started"
    REPLAY_CANCELLED = "replay.cancelled"
    REPLAY_ENDED = "replay.ended"
    PAYLOAD_READ = "event.payload_read"
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
    """One change, as its audit row records it. `subject` names the changed object, for instance `endpoint:{id}`.

    `before` and `after` are facts that every reader of the log may see, never a secret: refs, the
    generation, the host of a url. They contain JSON values, and times, which become RFC 3339.
    """

    tenant_id: TenantId
    action: Action
    subject: str
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    correlation_id: str | None = None


class ChainKey(Protocol):
    """The integrity key, as the log uses it. The messages of the log begin with a label of its own."""

    @property
    def key_id(self) -> str:
        """The id of the version that authenticates new rows."""
        ...

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC under this id can be verified."""
        ...

    def authenticate(self, message: bytes) -> bytes:
        """Return the MAC of the message under the version `key_id`."""
        ...

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under that version; False for an unknown version."""
        ...
