"""The metrics of hookseal in one table, from which `tools/pages/metrics.py` writes docs/metrics.md.

No label holds a url. The values of every label are a closed set, the registered master keys, the ids of ten endpoints,
or of the tenants and endpoints that `HOOKSEAL_METRICS_TENANTS` allows.
"""

from enum import StrEnum
from typing import Final

from hookseal.dispatcher.core.concerns import Limit
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.core.model import Outcome, WaitingFor
from hookseal.dispatcher.store.history import TABLES
from hookseal.queue.intake import DropReason
from hookseal.secrets.core.key_rules import KeyState
from hookseal.worker.metrics import runtime
from hookseal.worker.metrics.runtime import Aggregation, Kind, Metric
from hookseal.worker.saturation import Has, Statement

# What the key of a secret counts as if the table of master keys does not have it.
UNREGISTERED: Final = "unregistered"
# The loops that deliveries depend on: `/readyz` has a check for each.
LOOPS: Final = ("taking", "handling", "sweep", "outbox", "holding", "heartbeat", "lanes")


class RungBy(StrEnum):
    """What in a worker put a ring into the queue."""

    OUTBOX = "outbox"
    SWEEP = "sweep"


class FailureOf(StrEnum):
    """Whether a retry can help when a secret is not available."""

    DEFINITIVE = "definitive"
    TRANSIENT = "transient"


class SkippedBecause(StrEnum):
    """Why a replay job did not replay a delivery."""

    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"


# The bounds of the buckets around the default time-out, 5 s, so that what timed out is in a bucket of its own.
_AROUND_TIMEOUT: Final = (4.5, 5.5)
HELD_WORDS: Final = {False: "no", True: "yes"}

# --- Attempts and deliveries ---

ATTEMPTS: Final = Metric(
    name="hookseal_attempts_total",
    kind=Kind.COUNTER,
    text="Attempts by outcome.",
    labels={"outcome": tuple(Outcome)},
)
ATTEMPT_DURATION: Final = Metric(
    name="hookseal_attempt_duration_seconds",
    kind=Kind.HISTOGRAM,
    text="Duration of the HTTP request of an attempt.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, *_AROUND_TIMEOUT, 10, 20),
)
FIRST_ATTEMPT: Final = Metric(
    name="hookseal_time_to_first_attempt_seconds",
    kind=Kind.HISTOGRAM,
    text="Time from the call of publish to the claim of the first attempt; what its transaction takes after the call "
    "counts. `held`: `no` is what hookseal owes; `yes` if something else held the delivery meanwhile: its secret was "
    "refused, its breaker was open, its endpoint was disabled, it was not at the head of its line, or its endpoint had "
    "as many requests as it may have, or a pause between requests that hang. A wait for a free slot of a worker counts "
    "as `no`, also for a tenant that has its share of the slots. What waits in a line counts as `yes`, also if "
    "hookseal itself delays the head.",
    labels={"held": tuple(HELD_WORDS.values())},
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, *_AROUND_TIMEOUT, 10, 30, 60, 300, 3600),
)
IN_FLIGHT: Final = Metric(
    name="hookseal_in_flight",
    kind=Kind.GAUGE,
    text="Deliveries that are claimed and not yet recorded: at most twice `HOOKSEAL_CONCURRENCY` in each process.",
)
HELD: Final = Metric(
    name="hookseal_held_total",
    kind=Kind.COUNTER,
    text="Times that a delivery was held back: not sent, and no attempt used up.",
    labels={"waiting_for": tuple(WaitingFor)},
)
HELD_TOO_LONG: Final = Metric(
    name="hookseal_held_too_long_total",
    kind=Kind.COUNTER,
    text="Deliveries cancelled because their endpoint was disabled for longer than `HOOKSEAL_HELD_DAYS`.",
)
DEAD_LETTERS: Final = Metric(
    name="hookseal_dead_letters_total", kind=Kind.COUNTER, text="Deliveries that became dead letters."
)
GIVEN_BACK: Final = Metric(
    name="hookseal_given_back_total",
    kind=Kind.COUNTER,
    text="Deliveries given back, with no attempt spent: the claim was too old to connect, the TLS context was not "
    "ready in time, the claim read limits of the endpoint that do not allow it, or no outcome could be recorded.",
)
EXHAUSTED: Final = Metric(
    name="hookseal_exhausted_total",
    kind=Kind.COUNTER,
    text="Deliveries given back, with no attempt spent: no file descriptor or memory was left.",
)
OLDEST_DUE: Final = Metric(
    name="hookseal_oldest_due_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="How long the oldest delivery that is due has waited; 0 if none is due. Leader only.",
)
DUE: Final = Metric(
    name="hookseal_due",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Deliveries that are due, counted up to 100,000. Leader only.",
)
WAITING: Final = Metric(
    name="hookseal_waiting",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Deliveries that are held back, counted up to 100,000. Leader only.",
    labels={"waiting_for": tuple(WaitingFor)},
)
PENDING_OLDEST: Final = Metric(
    name="hookseal_pending_oldest_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long the delivery has been held that was held first, by what it waits for; 0 if nothing waits for "
    "that. What is due and not held is in `hookseal_oldest_due_seconds`. Leader only.",
    labels={"waiting_for": tuple(WaitingFor)},
)
TENANT_PENDING: Final = Metric(
    name="hookseal_tenant_pending",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Pending deliveries of a tenant, counted up to 10,000 of each kind: for the `HOOKSEAL_METRICS_TENANTS` "
    "whose oldest has been due or held for longest. Those of all others are `_other`. Leader only.",
    labels={"tenant": ()},
)
TENANT_OLDEST: Final = Metric(
    name="hookseal_tenant_oldest_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long the oldest delivery of a tenant has been due or held, not counting those of disabled "
    "endpoints: for the same tenants. `_other` is the longest time of all others. Leader only.",
    labels={"tenant": ()},
)
TENANT_STOPPED: Final = Metric(
    name="hookseal_tenant_stopped_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long all enabled endpoints of a tenant have been stopped, be it one: by a breaker or a refused "
    "secret. For the `HOOKSEAL_METRICS_TENANTS` for which that is longest; `_other` is the longest time of all "
    "others. Absent if there is none. Leader only.",
    labels={"tenant": ()},
)
REMOVED: Final = Metric(
    name="hookseal_removed_total",
    kind=Kind.COUNTER,
    text="Rows that this worker deleted because `HOOKSEAL_RETENTION_DAYS` had passed.",
    labels={"table": TABLES},
)
RETENTION_LAG: Final = Metric(
    name="hookseal_retention_lag_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long the oldest finished delivery has been kept beyond `HOOKSEAL_RETENTION_DAYS`. Leader only.",
)

# --- Leases, claims and records ---

LEASES_LOST: Final = Metric(
    name="hookseal_leases_lost_total",
    kind=Kind.COUNTER,
    text="Outcomes that were not recorded, because their lease was lost.",
)
LEASES_TAKEN_BACK: Final = Metric(
    name="hookseal_leases_taken_back_total",
    kind=Kind.COUNTER,
    text="Expired leases that this worker ended: their workers died, were paused, or could not keep them.",
)
CLAIMS_FAILED: Final = Metric(
    name="hookseal_claims_failed_total",
    kind=Kind.COUNTER,
    text="Claims that failed: PostgreSQL did not answer, or there was an internal error.",
)
RECORDS_FAILED: Final = Metric(
    name="hookseal_records_failed_total",
    kind=Kind.COUNTER,
    text="Tries to record outcomes that failed. They are repeated, and nothing more is sent until one succeeds.",
)
UNRECORDED: Final = Metric(
    name="hookseal_unrecorded",
    kind=Kind.GAUGE,
    text="Outcomes that a worker knows and that are not on record yet: at most twice `HOOKSEAL_CONCURRENCY` in each "
    "process.",
)
OLDEST_UNRECORDED: Final = Metric(
    name="hookseal_oldest_unrecorded_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="How long the oldest outcome that is not on record has waited for it; 0 if there is none.",
)

# --- Rings ---

RINGS: Final = Metric(
    name="hookseal_rings_total",
    kind=Kind.COUNTER,
    text="Rings that this worker put into the queue: `outbox` for what was not marked as rung, `sweep` for what was "
    "lost. A lost ring of a Publisher counts as both: the sweep finds it, and the outbox rings.",
    labels={"by": tuple(RungBy)},
)
RINGS_DROPPED: Final = Metric(
    name="hookseal_rings_dropped_total",
    kind=Kind.COUNTER,
    text="Rings that claimed nothing. `not_due`: the delivery is not due, or not any more (normal in small numbers), "
    "or the ring is forged. Removed from Redis: `not_an_id`: the queue entry is no UUID; `no_job`: it has no job; "
    "`too_large`; `unreadable`: the job is no call of `deliver` with three ids.",
    labels={"reason": tuple(DropReason)},
)
QUEUE_DEPTH: Final = Metric(
    name="hookseal_queue_depth", kind=Kind.GAUGE, aggregation=Aggregation.MAX, text="Rings in the queue. Leader only."
)

# --- Endpoints ---

ENDPOINTS_DISABLED: Final = Metric(
    name="hookseal_endpoints_disabled_total",
    kind=Kind.COUNTER,
    text="Endpoints that were disabled by an answer 410, or because they failed for `HOOKSEAL_DISABLE_AFTER_SECONDS`.",
)
ENDPOINTS_FAILING: Final = Metric(
    name="hookseal_endpoints_failing",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Enabled endpoints that are failing. An endpoint is failing from the first failure that a worker sees a "
    "minute or more after another, with no success between them, until an attempt succeeds. Leader only.",
)
ENDPOINT_FAILING: Final = Metric(
    name="hookseal_endpoint_failing_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long an endpoint is failing, for the ten enabled endpoints for which that is longest. The others are "
    "only counted, by `hookseal_endpoints_failing`. Leader only.",
    labels={"endpoint": ()},
)
BREAKERS_OPENED: Final = Metric(
    name="hookseal_breakers_opened_total",
    kind=Kind.COUNTER,
    text="Breakers that this worker opened: an endpoint failed ten times in a row, and waits for a probe.",
)
BREAKERS_OPEN: Final = Metric(
    name="hookseal_breakers_open",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints whose breaker is open. Leader only.",
)
BREAKER_OPEN: Final = Metric(
    name="hookseal_breaker_open_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="For how long a breaker has been open, for the `HOOKSEAL_METRICS_TENANTS` endpoints for which that is "
    "longest. The others are only counted, by `hookseal_breakers_open`. Leader only.",
    labels={"tenant": (), "endpoint": ()},
)
LANES_CROWDED: Final = Metric(
    name="hookseal_lanes_crowded",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints whose lane is crowded: as many requests as they may have are or were in flight, or began in this "
    "second. Leader only.",
)
LINES_STOPPED: Final = Metric(
    name="hookseal_lines_stopped",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Ordered endpoints that send nothing until an operator replays or skips their dead letter or failed delivery, "
    "counted up to 100,000. Leader only.",
)

# --- Replay jobs ---

REPLAYED: Final = Metric(
    name="hookseal_replayed_total",
    kind=Kind.COUNTER,
    text="Deliveries that replay jobs made due again.",
)
REPLAY_SKIPPED: Final = Metric(
    name="hookseal_replay_skipped_total",
    kind=Kind.COUNTER,
    text="Deliveries that replay jobs skipped, because their endpoint is disabled or deleted.",
    labels={"reason": tuple(SkippedBecause)},
)
REPLAYS_RUNNING: Final = Metric(
    name="hookseal_replays_running",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Replay jobs that run. Leader only.",
)
REPLAY_IDLE: Final = Metric(
    name="hookseal_replay_idle_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="The longest time since a running replay job took its last step; 0 if none runs. Leader only.",
)

# --- Secrets, and the audit log ---

CACHE_HITS: Final = Metric(
    name="hookseal_secret_cache_hits_total", kind=Kind.COUNTER, text="Reads of a secret that the cache answered."
)
CACHE_MISSES: Final = Metric(
    name="hookseal_secret_cache_misses_total",
    kind=Kind.COUNTER,
    text="Reads of a secret that the store answered, or failed to.",
)
CACHE_EVICTIONS: Final = Metric(
    name="hookseal_secret_cache_evictions_total",
    kind=Kind.COUNTER,
    text="Secrets removed from the cache because it was full.",
)
CACHE_ENTRIES: Final = Metric(
    name="hookseal_secret_cache_entries", kind=Kind.GAUGE, text="Secrets in the cache; they are sealed there."
)
CACHE_BYTES: Final = Metric(
    name="hookseal_secret_cache_bytes", kind=Kind.GAUGE, text="Memory that the secrets in the cache use."
)
SECRET_FAILURES: Final = Metric(
    name="hookseal_secret_failures_total",
    kind=Kind.COUNTER,
    text="Reads of a secret that failed: `definitive` until an operator acts, `transient` until the store answers.",
    labels={"kind": tuple(FailureOf)},
)
STALE_FOUND: Final = Metric(
    name="hookseal_stale_rows_found_total",
    kind=Kind.COUNTER,
    text="Stale endpoint rows and secret records, and unaudited rows, that were found, each audited once.",
)
AUDIT_REFUSED: Final = Metric(
    name="hookseal_audit_rows_refused_total",
    kind=Kind.COUNTER,
    text="Audit rows about refused or stale secrets that the audit log did not accept: the chain of a tenant is "
    "broken, or a right is missing. The log of the worker has each of them.",
)
PLAINTEXT_ROWS: Final = Metric(
    name="hookseal_plaintext_rows",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints that still hold a plaintext secret of an older system, until `hookseal migrate-secrets --finalize`."
    " Leader only.",
)
ROTATIONS_OVERDUE: Final = Metric(
    name="hookseal_rotations_overdue",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints whose scheduled rotation is an hour late, or 25 hours if it was not announced. Leader only.",
)
ROTATIONS_FAILING: Final = Metric(
    name="hookseal_rotations_failing",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Endpoints whose scheduled rotation failed, or could not be announced, at the last check. Leader only.",
)

# --- Master keys ---

RECORDS: Final = Metric(
    name="hookseal_master_key_records",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Sealed secret versions by the master key that opens them and its state. Those of keys that are not "
    "registered count as `unregistered`. Leader only.",
    labels={"key_id": (), "state": (*KeyState, UNREGISTERED)},
)
KEY_AGE: Final = Metric(
    name="hookseal_master_key_age_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="How long a master key has been in its state: `staged` since it was registered, `active` since it was "
    "promoted, `decrypt_only` since another key was promoted, `retired` since it was retired, `destroyed` since it was "
    "destroyed. Leader only.",
    labels={"key_id": (), "state": tuple(KeyState)},
)

# --- What limits a worker ---

LIMIT: Final = Metric(
    name="hookseal_limit",
    kind=Kind.GAUGE,
    text="What a worker may have at once. `requests`: `HOOKSEAL_CONCURRENCY`. `bytes`: the bodies that it holds. "
    "`connections`: to PostgreSQL, for everything but claims, records and probes. `batch_connections`: for claims and "
    "records.",
    labels={"of": tuple(Has)},
)
IN_USE: Final = Metric(
    name="hookseal_in_use",
    kind=Kind.GAUGE,
    text="What a worker has of it now.",
    labels={"of": tuple(Has)},
)
SATURATED: Final = Metric(
    name="hookseal_saturated_seconds_total",
    kind=Kind.COUNTER,
    text="Time in which something limited this worker, looked at twice a second. `requests`, `bytes`: a delivery "
    "could begin, and no slot, or no room for its body, was free. `postgresql`: claims took nearly all of the time, "
    "a connection was waited for half of it, or outcomes could not be recorded as fast as they came. `redis`: it "
    "took half of the time to answer. `cpu`: the process used nearly all of one core; what then waits for PostgreSQL "
    "or Redis is not counted.",
    labels={"by": tuple(Limit)},
)
CONNECTION_WAIT: Final = Metric(
    name="hookseal_connection_wait_seconds_total",
    kind=Kind.COUNTER,
    text="Time that callers have waited for a connection to PostgreSQL because all were in use.",
    labels={"of": (Has.CONNECTIONS, Has.BATCH_CONNECTIONS)},
)
STATEMENT_DURATION: Final = Metric(
    name="hookseal_statement_seconds",
    kind=Kind.HISTOGRAM,
    text="Duration of a statement that claims deliveries, or records outcomes, with the wait for its connection, "
    "also if it fails.",
    labels={"statement": tuple(Statement)},
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
STATEMENT_ROWS: Final = Metric(
    name="hookseal_statement_rows_total",
    kind=Kind.COUNTER,
    text="Deliveries that these statements claimed, and outcomes that they were to record.",
    labels={"statement": tuple(Statement)},
)
REDIS_DURATION: Final = Metric(
    name="hookseal_redis_seconds",
    kind=Kind.HISTOGRAM,
    text="How long Redis took to accept rings, or to say which rings are lost or how many there are. The taking of "
    "rings is not in it: it waits for one.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
MEASURED_AGE: Final = Metric(
    name="hookseal_measured_age_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="How long ago the leader began to measure what it reports. Leader only.",
)

# --- Workers ---

READY: Final = Metric(
    name="hookseal_ready",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MIN,
    text="1 for each check of `/readyz` that passed during this scrape, else 0.",
    labels={"check": ("postgresql", "redis", "schema", "secrets", "queue", "records", *map("loop_{}".format, LOOPS))},
)
LOOP_LAG: Final = Metric(
    name="hookseal_loop_lag_seconds",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="The longest delay of the event loop within the last 30 seconds.",
)
WORKERS_LIVE: Final = Metric(
    name="hookseal_workers_live",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text=f"Workers with a heartbeat within the last {LIVE_SECONDS:.0f} seconds. Leader only.",
)
BUILD_INFO: Final = Metric(
    name="hookseal_build_info",
    kind=Kind.GAUGE,
    aggregation=Aggregation.MAX,
    text="Always 1; the labels are the version of hookseal and the schema revision that it needs.",
    labels={"version": (), "schema_revision": ()},
)

# Every metric of this module, in the order of its lines, and those that the parent of several processes counts.
METRICS: Final = (
    *(each for each in tuple(globals().values()) if isinstance(each, Metric)),
    runtime.PROCESSES,
    runtime.PROCESS_RESTARTS,
)
NAMES: Final = tuple(metric.name for metric in METRICS)
