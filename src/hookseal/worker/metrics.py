"""What a worker tells Prometheus: one table of metrics, from which docs/metrics.md is written.

No label holds a tenant, an endpoint or a url: the values of every label are a closed set, or the registered
master keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.model import Outcome, WaitingFor
from hookseal.queue.taking import DropReason
from hookseal.secrets.key_rules import KeyState

UNREGISTERED: Final = "unregistered"


class Kind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class RungBy(StrEnum):
    """Who rang, besides whoever published."""

    OUTBOX = "outbox"
    SWEEP = "sweep"


class FailureOf(StrEnum):
    """How a secret could not be had: for good, or for now."""

    DEFINITIVE = "definitive"
    TRANSIENT = "transient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its labels, each with all the values that it may have, none if only measuring tells them."""

    name: str
    kind: Kind
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


ATTEMPTS: Final = Metric(
    name="hookseal_attempts_total",
    kind=Kind.COUNTER,
    text="Attempts that were made, by how they ended.",
    labels={"outcome": tuple(Outcome)},
)
ATTEMPT_DURATION: Final = Metric(
    name="hookseal_attempt_duration_seconds",
    kind=Kind.HISTOGRAM,
    text="How long the request of an attempt took.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
FIRST_ATTEMPT: Final = Metric(
    name="hookseal_time_to_first_attempt_seconds",
    kind=Kind.HISTOGRAM,
    text="From publish to the claim of the first attempt.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
IN_FLIGHT: Final = Metric(name="hookseal_in_flight", kind=Kind.GAUGE, text="Deliveries claimed here and not yet ended.")
HELD: Final = Metric(
    name="hookseal_held_total",
    kind=Kind.COUNTER,
    text="Times that a delivery was held back, unsent and unspent.",
    labels={"waiting_for": tuple(WaitingFor)},
)
HELD_TOO_LONG: Final = Metric(
    name="hookseal_held_too_long_total",
    kind=Kind.COUNTER,
    text="Deliveries cancelled because their endpoint was disabled for longer than `HOOKSEAL_HELD_DAYS`.",
)
DEAD_LETTERS: Final = Metric(
    name="hookseal_dead_letters_total", kind=Kind.COUNTER, text="Deliveries that spent their last attempt."
)
ENDPOINTS_DISABLED: Final = Metric(
    name="hookseal_endpoints_disabled_total", kind=Kind.COUNTER, text="Answers that disabled an endpoint."
)
GIVEN_BACK: Final = Metric(
    name="hookseal_given_back_total",
    kind=Kind.COUNTER,
    text="Given back, unspent: the claim was too old to dial, or no TLS context was made in time.",
)
EXHAUSTED: Final = Metric(
    name="hookseal_exhausted_total", kind=Kind.COUNTER, text="Given back, unspent, for want of a descriptor or memory."
)
LEASES_LOST: Final = Metric(
    name="hookseal_leases_lost_total",
    kind=Kind.COUNTER,
    text="Outcomes that came after their lease had moved on, and were not written.",
)
LEASES_TAKEN_BACK: Final = Metric(
    name="hookseal_leases_taken_back_total", kind=Kind.COUNTER, text="Leases of dead or cut-off workers, ended here."
)
RINGS: Final = Metric(
    name="hookseal_rings_total",
    kind=Kind.COUNTER,
    text="Rings that this worker put into the queue; those of `sweep` replace what was lost.",
    labels={"by": tuple(RungBy)},
)
RINGS_DROPPED: Final = Metric(
    name="hookseal_rings_dropped_total",
    kind=Kind.COUNTER,
    text="Rings that claimed nothing. `not_due`: forged, or of a delivery that is not due (any more), the only reason "
    "that is usual. Thrown out of Redis: `not_an_id`: no UUID is queued; `held_too_long`: held for longer than a ring "
    "may be, and free again; `no_job`: nothing says what is rung; `too_large`; `unreadable`: no call of `deliver` with "
    "three ids; `unfinished`: it took too long to answer, or failed by a defect.",
    labels={"reason": tuple(DropReason)},
)
CLAIMS_FAILED: Final = Metric(
    name="hookseal_claims_failed_total",
    kind=Kind.COUNTER,
    text="Claims that PostgreSQL did not answer, or that a defect ended.",
)
CACHE_HITS: Final = Metric(
    name="hookseal_secret_cache_hits_total", kind=Kind.COUNTER, text="Secrets that the cache had."
)
CACHE_MISSES: Final = Metric(
    name="hookseal_secret_cache_misses_total", kind=Kind.COUNTER, text="Secrets that the store was asked for."
)
CACHE_EVICTIONS: Final = Metric(
    name="hookseal_secret_cache_evictions_total",
    kind=Kind.COUNTER,
    text="Secrets that left the cache because it was full.",
)
SECRET_FAILURES: Final = Metric(
    name="hookseal_secret_failures_total",
    kind=Kind.COUNTER,
    text="Secrets that could not be had: `definitive` until somebody acts, `transient` until the store answers.",
    labels={"kind": tuple(FailureOf)},
)
PUT_BACK: Final = Metric(
    name="hookseal_rollbacks_found_total",
    kind=Kind.COUNTER,
    text="Endpoint rows and secret records that were found to be put back to an older state, each audited once.",
)
AUDIT_REFUSED: Final = Metric(
    name="hookseal_audit_rows_refused_total",
    kind=Kind.COUNTER,
    text="Rows of refusals and of what was put back that the audit log did not take: the chain of a tenant is broken, "
    "or a right is missing. Each is in the log of the worker.",
)
CACHE_ENTRIES: Final = Metric(
    name="hookseal_secret_cache_entries", kind=Kind.GAUGE, text="Secrets in the cache, sealed."
)
CACHE_BYTES: Final = Metric(name="hookseal_secret_cache_bytes", kind=Kind.GAUGE, text="What they take.")
READY: Final = Metric(
    name="hookseal_ready",
    kind=Kind.GAUGE,
    text="1 for each check of `/readyz` that was passed as these figures were asked for, else 0.",
    labels={"check": ("postgresql", "redis", "schema", "secrets", "queue")},
)
LOOP_LAG: Final = Metric(
    name="hookseal_loop_lag_seconds",
    kind=Kind.GAUGE,
    text="The longest that the event loop of this worker was late within the last half minute.",
)
OLDEST_DUE: Final = Metric(
    name="hookseal_oldest_due_seconds",
    kind=Kind.GAUGE,
    text="For how long the oldest delivery that is due has waited; 0 if none is due. Leader only.",
)
DUE: Final = Metric(
    name="hookseal_due", kind=Kind.GAUGE, text="Deliveries that are due, counted up to 100,000. Leader only."
)
WAITING: Final = Metric(
    name="hookseal_waiting",
    kind=Kind.GAUGE,
    text="Deliveries that are held back, counted up to 100,000. Leader only.",
    labels={"waiting_for": tuple(WaitingFor)},
)
QUEUE_DEPTH: Final = Metric(name="hookseal_queue_depth", kind=Kind.GAUGE, text="Rings in the queue. Leader only.")
RECORDS: Final = Metric(
    name="hookseal_master_key_records",
    kind=Kind.GAUGE,
    text="Sealed secret versions by the master key that opens them and its state. Those of keys that nobody registered "
    "are counted under `unregistered`. Leader only.",
    labels={"key_id": (), "state": (*KeyState, UNREGISTERED)},
)
KEY_AGE: Final = Metric(
    name="hookseal_master_key_age_seconds",
    kind=Kind.GAUGE,
    text="For how long a master key has been in its state: `active` since it was promoted, `decrypt_only` since "
    "another was, `staged` since it was registered. Leader only.",
    labels={"key_id": (), "state": tuple(KeyState)},
)
PLAINTEXT_ROWS: Final = Metric(
    name="hookseal_plaintext_rows",
    kind=Kind.GAUGE,
    text="Endpoints that still hold a plaintext secret of an older system, until `hookseal migrate-secrets --finalize`."
    " Leader only.",
)
ROTATIONS_OVERDUE: Final = Metric(
    name="hookseal_rotations_overdue",
    kind=Kind.GAUGE,
    text="Endpoints whose rotation by schedule is an hour late, or a day and an hour where none was announced. "
    "Leader only.",
)
ROTATIONS_FAILING: Final = Metric(
    name="hookseal_rotations_failing",
    kind=Kind.GAUGE,
    text="Endpoints whose rotation by schedule could not be announced or made at the last look. Leader only.",
)
WORKERS_LIVE: Final = Metric(
    name="hookseal_workers_live",
    kind=Kind.GAUGE,
    text=f"Workers that were heard of within {LIVE_SECONDS:.0f} seconds. Leader only.",
)

METRICS: Final = (
    ATTEMPTS,
    ATTEMPT_DURATION,
    FIRST_ATTEMPT,
    IN_FLIGHT,
    HELD,
    HELD_TOO_LONG,
    DEAD_LETTERS,
    ENDPOINTS_DISABLED,
    GIVEN_BACK,
    EXHAUSTED,
    LEASES_LOST,
    LEASES_TAKEN_BACK,
    RINGS,
    RINGS_DROPPED,
    CLAIMS_FAILED,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_EVICTIONS,
    SECRET_FAILURES,
    PUT_BACK,
    AUDIT_REFUSED,
    CACHE_ENTRIES,
    CACHE_BYTES,
    READY,
    LOOP_LAG,
    OLDEST_DUE,
    DUE,
    WAITING,
    QUEUE_DEPTH,
    RECORDS,
    KEY_AGE,
    PLAINTEXT_ROWS,
    ROTATIONS_OVERDUE,
    ROTATIONS_FAILING,
    WORKERS_LIVE,
)
NAMES: Final = tuple(metric.name for metric in METRICS)

_READS: Final = (
    "## What of secrets is counted where",
    "",
    "| what | figure | audit log |",
    "|---|---|---|",
    f"| a secret was read | `{CACHE_HITS.name}` or `{CACHE_MISSES.name}`, one of them for each | nothing |",
    f"| refused for good | `{SECRET_FAILURES.name}`, `{FailureOf.DEFINITIVE}` | `secret.denied` by the minute (1) |",
    f"| the store did not answer | `{SECRET_FAILURES.name}`, `{FailureOf.TRANSIENT}` | nothing |",
    f"| it had been put back | `{PUT_BACK.name}` | `rollback.found`, once for each |",
    f"| the audit log took no row of these | `{AUDIT_REFUSED.name}` | nothing: the log of the worker tells it |",
    "| it was given out to an operator | none | `secret.revealed`, each time |",
    "",
    "(1) For each worker and tenant: how often by code, from when to when, and up to ten endpoints.",
    "",
)


def metrics_page() -> str:
    """Return the page `docs/metrics.md` in Markdown."""
    lines = [
        "# Metrics",
        "",
        "A worker answers `/metrics` where its probes are (`HOOKSEAL_HEALTH_HOST`, `HOOKSEAL_HEALTH_PORT`). No label",
        'holds a tenant, an endpoint or a url. What says "leader only" is measured once a sweep by the one worker that',
        "leads the outbox, and is absent at all others: take the maximum over the workers.",
        "",
        "| metric | kind | label | meaning |",
        "|---|---|---|---|",
        *(f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.text} |" for metric in METRICS),
        "",
        *_READS,
    ]
    return "\n".join(lines)


def _labels(metric: Metric) -> str:
    return "; ".join(_label(*label) for label in metric.labels.items())


def _label(name: str, values: tuple[str, ...]) -> str:
    listed = ", ".join(f"`{value}`" for value in values)
    return f"`{name}`: {listed or 'as measured'}"
