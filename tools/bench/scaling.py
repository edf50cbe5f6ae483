"""What the measured costs mean at 1,000, 10,000 and 100,000 deliveries a second: a calculation, and a simulation.

Costs come from a run; what no run can measure on this machine (the size of a server, its planned load) is assumed, by
name. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from tools.bench.bars import two_to_one
from tools.bench.results import POSTGRESQL, RECEIVER, REDIS, WORKER, Row, Run

TARGETS: Final = (1_000, 10_000, 100_000)
_US: Final = 1e6
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of one delivery with its publishing: microseconds of CPU, bytes of WAL, bytes on disk."""

    worker_us: float
    postgresql_us: float
    publish_postgresql_us: float
    redis_us: float
    publish_redis_us: float
    wal_bytes: float
    stored_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What is not measured: the size of one server of each kind, and its planned load."""

    busy: float = 0.6
    postgresql_cores: int = 64
    wal_bytes_per_second: float = 200e6
    disk_bytes: float = 16e12
    retention_days: int = 30
    redis_cores: int = 1
    connections: int = 500
    connections_per_process: int = 13  # ten, two for the probes, one that listens


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A resource that is exhausted at that rate, and what to do then."""

    resource: str
    per_second: float
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a rate needs: worker processes, PostgreSQL servers with that many cores each, and queues in Redis."""

    per_second: int
    processes: int
    servers: int
    cores_each: int
    queues: int


def days_kept(costs: Costs, assumed: Assumed, of: Fleet) -> float:
    """Return for how many days the disks of the fleet can store the deliveries."""
    return _at(assumed.disk_bytes * of.servers, of.per_second * costs.stored_bytes * _DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """The result of an hour with a burst and an outage: waiting deliveries, and seconds."""

    most_waiting: float
    longest_wait_seconds: float
    caught_up_seconds: int
    left_waiting: float


def costs_of(run: Run) -> Costs | None:
    """Return the costs that a run has measured; None without the base case, 1,000 endpoints or publishing.

    CPU is that with 1,000 endpoints, since no single one gets the rates of this page. Bytes are those of the base case:
    with 1,000 endpoints many deliveries share an event.
    """
    base, many = run.ours("base"), run.ours("1000endpoints")
    publish = run.row("publish", "Publisher, one at a time")
    if base is None or many is None or publish is None:
        return None
    with_fsync = run.ours("durable") or base  # only there whole pages are in the journal
    return Costs(
        worker_us=many.microseconds(WORKER) * max(1.0, two_to_one(run) or 1.0),
        postgresql_us=many.microseconds(POSTGRESQL),
        publish_postgresql_us=publish.microseconds(POSTGRESQL),
        redis_us=many.microseconds(REDIS),
        publish_redis_us=publish.microseconds(REDIS),
        wal_bytes=(with_fsync.figure("wal_bytes") or 0.0) + (with_fsync.figure("publish_wal_bytes") or 0.0),
        stored_bytes=base.figure("stored_bytes") or 0.0,
    )


def limits(costs: Costs, assumed: Assumed) -> tuple[Limit, ...]:
    """Return the limits of one server of each kind, the lowest rate first."""
    postgresql_us = costs.postgresql_us + costs.publish_postgresql_us
    a_process = assumed.busy * _US / costs.worker_us
    found = (
        Limit(
            resource=f"PostgreSQL, CPU: {assumed.postgresql_cores} cores",
            per_second=_at(assumed.busy * assumed.postgresql_cores * _US, postgresql_us),
            remedy="tenants go to several servers (Citus, or a database for each group of tenants)",
        ),
        Limit(
            resource=f"PostgreSQL, journal: {assumed.wal_bytes_per_second / 1e6:,.0f} MB/s",
            per_second=_at(assumed.busy * assumed.wal_bytes_per_second, costs.wal_bytes),
            remedy="faster disks and replication slots that keep up; then several servers, by tenant",
        ),
        Limit(
            resource=f"PostgreSQL, disk: {assumed.disk_bytes / 1e12:,.0f} TB, kept {assumed.retention_days} days",
            per_second=_at(assumed.disk_bytes, costs.stored_bytes * _DAY * assumed.retention_days),
            remedy="a lower HOOKSEAL_RETENTION_DAYS; several servers",
        ),
        Limit(
            resource="Redis: one queue, one thread",
            per_second=_at(assumed.busy * assumed.redis_cores * _US, costs.redis_us + costs.publish_redis_us),
            remedy="a second Redis, or queue (HOOKSEAL_QUEUE), for a part of the workers and of the producers",
        ),
        Limit(
            resource=f"PostgreSQL, {assumed.connections} connections: {assumed.connections_per_process} a process",
            per_second=assumed.connections / assumed.connections_per_process * a_process,
            remedy="PgBouncer in transaction mode between workers and PostgreSQL",
        ),
    )
    return tuple(sorted(found, key=lambda limit: limit.per_second))


def fleet(costs: Costs, assumed: Assumed, per_second: int) -> Fleet:
    """Return the smallest fleet in which no resource is busier than planned, disks not considered."""
    rates = {limit.resource.split(":")[0]: limit.per_second for limit in limits(costs, assumed)}
    of_a_server = min(rates[f"PostgreSQL, {what}"] for what in ("CPU", "journal"))
    servers = max(1, ceil(per_second / of_a_server))
    postgresql_us = costs.postgresql_us + costs.publish_postgresql_us
    return Fleet(
        per_second=per_second,
        processes=max(1, ceil(per_second * costs.worker_us / _US / assumed.busy)),
        servers=servers,
        cores_each=max(1, ceil(per_second / servers * postgresql_us / _US / assumed.busy)),
        queues=max(1, ceil(per_second / rates["Redis"])),
    )


def load(per_second: float) -> Iterator[tuple[float, bool]]:
    """Yield how much is published in each second of an hour, and whether anything can be sent in it.

    From minute 10 to 15 the load is a quarter higher; from minute 30 to 32 nothing is sent (for instance a failover of
    PostgreSQL), and producers publish their waiting events afterwards.
    """
    held = 0.0
    for second in range(3_600):
        arriving = per_second * (1.25 if 600 <= second < 900 else 1.0)  # noqa: PLR2004 -- the docstring says them
        if 1_800 <= second < 1_920:  # noqa: PLR2004
            held += arriving
            yield 0.0, False
        else:
            yield arriving + held, True
            held = 0.0


def simulate(costs: Costs, assumed: Assumed, of: Fleet) -> Hour:
    """Return the result of the hour for the fleet, second by second. Publishing uses PostgreSQL before sending does."""
    cores = of.servers * of.cores_each * _US
    waiting = most = longest = 0.0
    last_waiting_second = 1_919
    for second, (arriving, sends) in enumerate(load(of.per_second)):
        waiting += arriving
        for_sending = max(0.0, cores - arriving * costs.publish_postgresql_us)
        can = min(
            _at(of.processes * _US, costs.worker_us),
            _at(for_sending, costs.postgresql_us),
            _at(of.queues * assumed.redis_cores * _US, costs.redis_us + costs.publish_redis_us),
            _at(of.servers * assumed.wal_bytes_per_second, costs.wal_bytes),
        )
        sent = min(waiting, can) if sends else 0.0
        waiting -= sent
        most = max(most, waiting)
        longest = max(longest, waiting / can if sends and can else 0.0)
        if waiting > 1 and second >= 1_920:  # noqa: PLR2004 -- the end of the outage
            last_waiting_second = second
    return Hour(
        most_waiting=most,
        longest_wait_seconds=longest,
        caught_up_seconds=last_waiting_second - 1_919,
        left_waiting=waiting,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The rate that the model predicts for the machine of the run, and the measured one."""

    scenario: str
    contender: str
    computed: float
    measured: float


def checked(run: Run) -> tuple[Checked, ...]:
    """Compare the model with the run: the predicted rate of each scenario on the machine of the run.

    All processes share its cores, and a worker process uses at most one.
    """
    names = ("base", "tls", "two", "32kb", "1000endpoints")
    rows = [(name, row) for name in names if (row := run.ours(name)) is not None]
    return tuple(
        Checked(
            scenario=name,
            contender=row.contender,
            computed=_on_one_machine(row, processes=2 if name == "two" else 1, cpus=run.machine.cpus),
            measured=row.per_second,
        )
        for name, row in rows
    )


def _on_one_machine(row: Row, *, processes: int, cpus: int) -> float:
    everybody = sum(row.microseconds(part) for part in (WORKER, POSTGRESQL, REDIS, RECEIVER))
    return min(_at(processes * _US, row.microseconds(WORKER)), _at(cpus * _US, everybody))


def _at(capacity: float, cost: float) -> float:
    return capacity / cost if cost else float("inf")
