"""docs/scaling.md: what the measured costs mean at 1,000, 10,000 and 100,000 deliveries a second.

Costs come from a run; what no run can measure on this machine (the size of a server, its planned load) is assumed, by
name. Pure.
"""

from collections.abc import Iterator
from math import ceil, isinf
from typing import Final, NamedTuple

from tools.bench.plan import HOOKSEAL, TWO
from tools.bench.results import Row, Run, two_to_one
from tools.harness import POSTGRESQL, RECEIVER, REDIS, WORKER
from tools.records import number, table
from tools.soak import Soak

TARGETS: Final = (1_000, 10_000, 100_000)
_US: Final = 1e6
_MB: Final = 1e6
_DAY: Final = 86_400

# What is not measured: the size of one server of each kind, and its planned load.
BUSY: Final = 0.6
CORES: Final = 64
WAL_PER_SECOND: Final = 200e6
DISK: Final = 16e12
RETENTION_DAYS: Final = 30
CONNECTIONS: Final = 500
OF_A_PROCESS: Final = 13  # connections: ten, two for the probes, one that listens


class Costs(NamedTuple):
    """The cost of one delivery with its publishing: microseconds of CPU, bytes of WAL, bytes on disk.

    `cold_us` is that of a worker if every request opens a TLS connection.
    """

    worker_us: float
    cold_us: float
    postgresql_us: float
    publish_postgresql_us: float
    redis_us: float
    publish_redis_us: float
    wal_bytes: float
    stored_bytes: float


class Limit(NamedTuple):
    """A resource that is exhausted at that rate, and what to do then."""

    resource: str
    per_second: float
    remedy: str


class Fleet(NamedTuple):
    """What a rate needs: worker processes, PostgreSQL servers with that many cores each, and queues in Redis.

    `cold_processes` is how many it needs if every request opens a TLS connection.
    """

    per_second: int
    processes: int
    cold_processes: int
    servers: int
    cores_each: int
    queues: int


class Hour(NamedTuple):
    """The result of an hour with a burst and an outage: waiting deliveries, and seconds."""

    most_waiting: float
    longest_wait_seconds: float
    caught_up_seconds: int
    left_waiting: float


KEPT, COLD = "places-1000-kept", "places-1000-cold"
ONE_PLACE: Final = "1000endpoints"


def case_of(run: Run) -> str:
    """Return the case from which the CPU of a delivery comes: 1,000 places with TLS, or else one place."""
    return ONE_PLACE if run.row(KEPT, HOOKSEAL) is None else KEPT


def costs_of(run: Run, soak: Soak) -> Costs | None:
    """Return the costs that a run has measured; None without the base case, 1,000 endpoints or publishing.

    CPU is that with 1,000 endpoints, since no single one gets the rates of this page. The journal is that of the base
    case: with 1,000 endpoints many deliveries share an event. What is stored is what the soak stores for each.
    """
    base, many, cold = run.row("base", HOOKSEAL), run.row(case_of(run), HOOKSEAL), run.row(COLD, HOOKSEAL)
    publish = run.row("publish", "Publisher, one at a time")
    if base is None or many is None or publish is None:
        return None
    together = max(1.0, two_to_one(run) or 1.0)
    return Costs(
        worker_us=many.microseconds(WORKER) * together,
        cold_us=cold.microseconds(WORKER) * together if cold is not None else 0.0,
        postgresql_us=many.microseconds(POSTGRESQL),
        publish_postgresql_us=publish.microseconds(POSTGRESQL),
        redis_us=many.microseconds(REDIS),
        publish_redis_us=publish.microseconds(REDIS),
        wal_bytes=(base.figure("wal_bytes") or 0.0) + (base.figure("publish_wal_bytes") or 0.0),
        stored_bytes=soak.last.size_mb * _MB / soak.last.stored if soak.last.stored else 0.0,
    )


def limits(costs: Costs) -> list[Limit]:
    """Return the limits of one server of each kind, the lowest rate first."""
    found = (
        Limit(
            f"PostgreSQL, CPU: {CORES} cores",
            _at(BUSY * CORES * _US, costs.postgresql_us + costs.publish_postgresql_us),
            "tenants go to several servers (Citus, or a database for each group of tenants)",
        ),
        Limit(
            f"PostgreSQL, journal: {WAL_PER_SECOND / _MB:,.0f} MB/s",
            _at(BUSY * WAL_PER_SECOND, costs.wal_bytes),
            "faster disks and replication slots that keep up; then several servers, by tenant",
        ),
        Limit(
            f"PostgreSQL, disk: {DISK / 1e12:,.0f} TB, kept {RETENTION_DAYS} days",
            _at(DISK, costs.stored_bytes * _DAY * RETENTION_DAYS),
            "a lower HOOKSEAL_RETENTION_DAYS; several servers",
        ),
        Limit(
            "Redis: one queue, one thread",
            _at(BUSY * _US, costs.redis_us + costs.publish_redis_us),
            "a second Redis, or queue (HOOKSEAL_QUEUE), for a part of the workers and of the producers",
        ),
        Limit(
            f"PostgreSQL, {CONNECTIONS} connections: {OF_A_PROCESS} a process",
            CONNECTIONS / OF_A_PROCESS * BUSY * _US / costs.worker_us,
            "PgBouncer in transaction mode between workers and PostgreSQL",
        ),
    )
    return sorted(found, key=lambda limit: limit.per_second)


def fleet(costs: Costs, per_second: int) -> Fleet:
    """Return the smallest fleet in which no resource is busier than planned, disks not considered."""
    rates = {limit.resource.split(":")[0]: limit.per_second for limit in limits(costs)}
    servers = max(1, ceil(per_second / min(rates["PostgreSQL, CPU"], rates["PostgreSQL, journal"])))
    postgresql_us = costs.postgresql_us + costs.publish_postgresql_us
    return Fleet(
        per_second=per_second,
        processes=_processes(per_second, costs.worker_us),
        cold_processes=_processes(per_second, costs.cold_us),
        servers=servers,
        cores_each=max(1, ceil(per_second / servers * postgresql_us / _US / BUSY)),
        queues=max(1, ceil(per_second / rates["Redis"])),
    )


def _processes(per_second: int, worker_us: float) -> int:
    return max(1, ceil(per_second * worker_us / _US / BUSY))


def days_kept(costs: Costs, of: Fleet) -> float:
    """Return for how many days the disks of the fleet can store the deliveries."""
    return _at(DISK * of.servers, of.per_second * costs.stored_bytes * _DAY)


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


def simulate(costs: Costs, of: Fleet) -> Hour:
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
            _at(of.queues * _US, costs.redis_us + costs.publish_redis_us),
            _at(of.servers * WAL_PER_SECOND, costs.wal_bytes),
        )
        waiting -= min(waiting, can) if sends else 0.0
        most = max(most, waiting)
        longest = max(longest, waiting / can if sends and can else 0.0)
        if waiting > 1 and second >= 1_920:  # noqa: PLR2004 -- the end of the outage
            last_waiting_second = second
    return Hour(most, longest, last_waiting_second - 1_919, waiting)


def checked(run: Run) -> list[tuple[str, Row, float]]:
    """Return scenarios of the run, and the rate that the model predicts for each on the machine of the run.

    All processes share its cores, and a worker process uses at most one.
    """
    rows = {name: run.row(name, HOOKSEAL) for name in ("base", "base-8kb", "endpoints-100", ONE_PLACE, KEPT, COLD)}
    rows["processes"] = run.row("processes", TWO)
    return [(name, row, _predicted(run, row)) for name, row in rows.items() if row is not None]


def _predicted(run: Run, row: Row) -> float:
    everybody = sum(row.microseconds(part) for part in (WORKER, POSTGRESQL, REDIS, RECEIVER))
    processes = 2 if row.contender == TWO else 1
    return min(_at(processes * _US, row.microseconds(WORKER)), _at(run.machine.cpus * _US, everybody))


def _at(capacity: float, cost: float) -> float:
    return capacity / cost if cost else float("inf")


def page(run: Run, soak: Soak) -> str:
    """Return the page; if the run lacks the needed costs, the page says so."""
    costs = costs_of(run, soak)
    head = f"""<!-- Written by `make bench`: do not edit. -->
# From one worker to 100,000 deliveries a second

Computed from the costs that `{run.command}` measured on {run.date} UTC at commit `{run.commit[:12]}`
([performance.md](proof/performance.md)), and from what `{soak.command}` stored at commit `{soak.commit[:12]}`
([soak.md](proof/soak.md)). **Measured** is what a delivery costs on one machine. **Computed** is all else here: nobody
ran 100,000 deliveries a second."""
    if costs is None:
        return f"{head}\n\nThe run lacks the base case, 1,000 endpoints or publishing: nothing can be computed.\n"
    first = limits(costs)[0]
    return f"""{head}

## What goes in

{_inputs(costs, run.titles[case_of(run)])}

## Where one server reaches its limit

**The first limit is {first.resource}, at {first.per_second:,.0f} deliveries a second.** Workers are no limit: start
more of them.

{_limits(costs)}

## What it takes

{_fleets(costs)}

## The same, simulated

Each of these fleets runs through an hour, second by second. For five minutes a quarter more is published. For two
minutes nothing can be sent or published; afterwards producers publish everything that they could not.

{_hours(costs)}

## Is the model right?

The same calculation for the machine of the run, beside the rate that was measured there. A ratio below 1 is time in
which cores waited; so the plan uses {BUSY:.0%} of them.

{_model(run)}

{_PLAN}
"""


def _inputs(costs: Costs, case: str) -> str:
    measured = (
        f"CPU of a worker, times the ratio of two that run together ({case}), us",
        "the same if the receiver closes each connection, us",
        "CPU of PostgreSQL, us",
        "CPU of PostgreSQL to publish it, us",
        "CPU of Redis, us",
        "CPU of Redis to ring it, us",
        "journal (WAL), publishing included (one endpoint, 1 KB), bytes",
        "on disk, with event, attempt, indexes and free space (the soak), bytes",
    )
    assumed = {
        "assumed: how busy CPU, Redis and journal are planned to be": f"{BUSY:.0%}",
        "assumed: cores of the largest server of PostgreSQL": str(CORES),
        "assumed: journal that it writes and replicates, MB/s": number(WAL_PER_SECOND / _MB),
        "assumed: its disk, TB": number(DISK / 1e12),
        "assumed: days that deliveries are kept": str(RETENTION_DAYS),
        "assumed: its connections": str(CONNECTIONS),
        "from the source: connections of a worker process": str(OF_A_PROCESS),
    }
    rows = [(f"measured: {what}", number(cost or None)) for what, cost in zip(measured, costs, strict=True)]
    return table(("of one delivery of 1 KB", ""), [*rows, *assumed.items()])


def _limits(costs: Costs) -> str:
    rows = [
        (limit.resource, "none" if isinf(limit.per_second) else f"{limit.per_second:,.0f}/s", limit.remedy)
        for limit in limits(costs)
    ]
    return table(("resource", "is used up at", "what to do"), rows)


def _fleets(costs: Costs) -> str:
    rows = [
        (
            f"{of.per_second:,}/s",
            f"{of.processes:,}",
            f"{of.cold_processes:,}" if costs.cold_us else number(None),
            f"{of.servers} x {of.cores_each} core{'s' * (of.cores_each > 1)}",
            f"{of.per_second * costs.wal_bytes / _MB:,.0f} MB/s",
            f"{of.per_second * costs.stored_bytes * _DAY / 1e9:,.0f} GB",
            number(days_kept(costs, of)),
            str(of.queues),
            f"{of.processes * OF_A_PROCESS:,}",
        )
        for of in (fleet(costs, per_second) for per_second in TARGETS)
    ]
    counted = (
        "worker processes",
        "all cold",
        "PostgreSQL",
        "journal",
        "stored a day",
        "days on disk",
        "queues in Redis",
    )
    return table(("", *counted, "connections"), rows)


def _hours(costs: Costs) -> str:
    rows = [
        (
            f"{per_second:,}/s",
            f"{hour.most_waiting:,.0f}",
            f"{hour.longest_wait_seconds:,.1f} s",
            f"{hour.caught_up_seconds:,} s",
            "yes" if hour.left_waiting < 1 else f"no: {hour.left_waiting:,.0f} wait",
        )
        for per_second in TARGETS
        for hour in (simulate(costs, fleet(costs, per_second)),)
    ]
    return table(("", "most deliveries waiting", "longest wait after", "caught up after", "keeps up"), rows)


def _model(run: Run) -> str:
    rows = [
        (
            f"{run.titles[name]} ({row.contender})",
            f"{computed:,.0f}/s",
            f"{row.per_second:,.0f}/s",
            number(row.per_second / computed),
        )
        for name, row, computed in checked(run)
    ]
    return table(("", "computed", "measured", "ratio"), rows)


_PLAN: Final = """## What else to know

- A managed PostgreSQL works: hookseal needs no extension. Replicas, backups and the network all carry the journal, so
  watch it before CPU.
- One connection deletes what is older than `HOOKSEAL_RETENTION_DAYS`, half of the time. The alert
  HooksealRetentionBehind reports that it does not keep up. Tables are not partitioned by time.
- To add a second Redis, nothing has to be copied: any worker may send any delivery.
- [PgBouncer](guide/running.md#behind-pgbouncer) must run in transaction mode.
- Several servers, by tenant: each group of tenants gets an installation of its own (database, Redis, workers). This
  works today. Citus has not been tried.

## What this page does not cover

- Slow receivers. They cost memory and connections, not CPU: at 1 s and 10,000/s 10,000 requests are in flight, which
  takes 20 processes at `HOOKSEAL_CONCURRENCY=500`.
- How many connections are cold. "All cold" is the number of processes if every request opens one; to thousands of
  receivers with little traffic most do.
- Contention within one server at 64 cores, replication that lags, and the network: the calculation is linear.
- Retries: each costs about as much as a first attempt, without the publishing."""
