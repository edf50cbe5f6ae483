"""The closed sets of the public interface, as type checkers and editors show them.

Each has the values of an enumeration, which checks them when the program runs; a test compares the two. An argument
takes a member of the enumeration as well.
"""

from typing import Literal, TypeAlias

SchemeName: TypeAlias = Literal["standard", "svix", "x-webhook"]
AlgorithmName: TypeAlias = Literal["hmac", "ed25519"]
DeliveryState: TypeAlias = Literal["pending", "sending", "delivered", "dead_letter", "failed", "cancelled"]
FinalState: TypeAlias = Literal["delivered", "dead_letter", "failed", "cancelled"]
WaitingReason: TypeAlias = Literal["secret", "endpoint_disabled", "breaker", "rate", "concurrency", "order"]
NextStep: TypeAlias = Literal[
    "nothing", "wait", "replay", "enable_endpoint", "update_endpoint", "clear_caches", "start_worker", "check_workers"
]
OutcomeName: TypeAlias = Literal[
    "delivered",
    "gone",
    "throttled",
    "redirect",
    "client_error",
    "server_error",
    "unexpected_status",
    "timeout",
    "tls",
    "dns",
    "connection",
    "forbidden_address",
    "protocol",
    "proxy",
    "invalid_url",
    "unknown",
]
AttemptResult: TypeAlias = Literal["delivered", "failed"]
EndpointState: TypeAlias = Literal["disabled", "held", "stopped", "failing", "healthy"]
TroubleName: TypeAlias = Literal["disabled", "held", "stopped", "failing", "rotation_due"]
TroubledState: TypeAlias = Literal["held", "stopped", "failing", "crowded"]
OnDeadLetterName: TypeAlias = Literal["stop", "skip"]
Lead: TypeAlias = Literal["previous", "current"]
StatsOrderName: TypeAlias = Literal["pending", "waiting", "oldest_due", "p99"]
ReplayState: TypeAlias = Literal["running", "done", "cancelled"]
VerdictName: TypeAlias = Literal["switched", "not_switched", "does_not_verify", "no_answer"]
ProviderName: TypeAlias = Literal["db", "aws", "gcp", "openbao"]
ScopeName: TypeAlias = Literal["read", "publish", "manage", "operate", "reveal"]
LimitName: TypeAlias = Literal["requests", "bytes", "postgresql", "redis", "cpu"]
TokenState: TypeAlias = Literal["active", "expired", "revoked"]
VersionStateName: TypeAlias = Literal["active", "previous", "retired", "destroyed"]
MasterKeyState: TypeAlias = Literal["unregistered", "staged", "active", "decrypt_only", "retired", "destroyed"]
StaleKindName: TypeAlias = Literal["endpoint", "record", "lost", "unaudited", "altered"]
ContradictionName: TypeAlias = Literal["older", "forked"]
ActionName: TypeAlias = Literal[
    "endpoint.added",
    "endpoint.updated",
    "endpoint.enabled",
    "endpoint.retried",
    "endpoint.disabled",
    "endpoint.deleted",
    "endpoint.probe_requested",
    "endpoint.probed",
    "endpoint.tested",
    "secret.rotated",
    "secret.rolled_back",
    "secret.overlap_ended",
    "secret.rotation_announced",
    "secret.revealed",
    "secret.destroyed",
    "secret.denied",
    "secret.migrated",
    "secret.moved",
    "secret.plaintext_emptied",
    "secret.plaintext_forbidden",
    "stale.found",
    "restore.accepted",
    "delivery.replayed",
    "delivery.skipped",
    "delivery.example_sent",
    "replay.started",
    "replay.cancelled",
    "replay.ended",
    "event.payload_read",
    "producer.granted",
    "producer.revoked",
    "event_type.added",
    "event_type.updated",
    "tenant.added",
    "tenant.updated",
    "tenant.deleted",
    "token.added",
    "token.revoked",
    "portal.added",
    "portal.code_spent",
    "portal.opened",
    "portal.expired",
    "key.initialised",
    "key.staged",
    "key.promoted",
    "key.rewrapped",
    "key.drained",
    "key.retired",
    "key.destroyed",
    "key.compromised",
    "integrity.rotated",
    "cache.cleared",
]
