"""Writes docs/scaling.md from a run. Pure: the same run gives the same page."""

from dataclasses import fields
from math import isinf
from typing import Final

from tools.bench.plan import CASES
from tools.bench.results import Run
from tools.bench.scaling import TARGETS, Assumed, Costs, checked, costs_of, days_kept, fleet, limits, simulate
from tools.bench.tables import number, table

PAGE: Final = "docs/scaling.md"
_MB: Final = 1e6
_DAY: Final = 86_400
_UNITS: Final = {
    "worker_us": "CPU of a worker with 1,000 endpoints, times the ratio of two that run together, us",
    "postgresql_us": "CPU of PostgreSQL with 1,000 endpoints, us",
    "publish_postgresql_us": "CPU of PostgreSQL to publish it, us",
    "redis_us": "CPU of Redis, us",
    "publish_redis_us": "CPU of Redis to ring it, us",
    "wal_bytes": "journal (WAL), publishing included, bytes",
    "stored_bytes": "on disk, with event, attempt and indexes, bytes",
}


def scaling(run: Run, assumed: Assumed | None = None) -> str:
    """Return the page; if the run lacks the needed costs, the page says so."""
    assumed = assumed or Assumed()
    costs = costs_of(run)
    head = (
        "<!-- Written by `make bench`: do not edit. -->\n# From one worker to 100,000 deliveries a second\n\n"
        f"Computed from the costs that `{run.command}` measured on {run.date} UTC at commit `{run.commit[:12]}` "
        "([performance.md](proof/performance.md)). **Measured** is what a delivery costs on one machine. **Computed** "
        "is all else here: this page was written without a run of 100,000 deliveries a second."
    )
    if costs is None:
        return f"{head}\n\nThe run lacks the base case, 1,000 endpoints or publishing: nothing can be computed.\n"
    parts = (
        head,
        _inputs(costs, assumed),
        _first_limit(costs, assumed),
        _fleets(costs, assumed),
        _hour(costs, assumed),
    )
    return "\n\n".join((*parts, _model(run), _PLAN)) + "\n"


def _inputs(costs: Costs, assumed: Assumed) -> str:
    rows = [(f"measured: {_UNITS[each.name]}", number(getattr(costs, each.name))) for each in fields(costs)]
    rows += [
        ("assumed: how busy CPU, Redis and journal are planned to be", f"{assumed.busy:.0%}"),
        ("assumed: cores of the largest server of PostgreSQL", str(assumed.postgresql_cores)),
        ("assumed: journal that it writes and replicates, MB/s", number(assumed.wal_bytes_per_second / _MB)),
        ("assumed: its disk, TB", number(assumed.disk_bytes / 1e12)),
        ("assumed: days that deliveries are kept", str(assumed.retention_days)),
        ("assumed: its connections", str(assumed.connections)),
        ("from the source: connections of a worker process", str(assumed.connections_per_process)),
    ]
    return f"## What goes in\n\n{table(('of one delivery of 1 KB', ''), rows)}"


def _first_limit(costs: Costs, assumed: Assumed) -> str:
    rows = [
        (limit.resource, "none" if isinf(limit.per_second) else f"{limit.per_second:,.0f}/s", limit.remedy)
        for limit in limits(costs, assumed)
    ]
    first = limits(costs, assumed)[0]
    return (
        "## Where one server reaches its limit\n\n"
        f"**The first limit is {first.resource}, at {first.per_second:,.0f} deliveries a second.** Workers are not "
        "a limit: they share nothing but PostgreSQL and Redis, so you can start more of them.\n\n"
        + table(("resource", "is used up at", "what to do"), rows)
    )


def _fleets(costs: Costs, assumed: Assumed) -> str:
    rows = []
    for per_second in TARGETS:
        of = fleet(costs, assumed, per_second)
        rows.append(
            (
                f"{per_second:,}/s",
                f"{of.processes:,}",
                f"{of.servers} x {of.cores_each} core{'s' * (of.cores_each > 1)}",
                f"{per_second * costs.wal_bytes / _MB:,.0f} MB/s",
                f"{per_second * costs.stored_bytes * _DAY / 1e9:,.0f} GB",
                number(days_kept(costs, assumed, of)),
                str(of.queues),
                f"{of.processes * assumed.connections_per_process:,}",
            )
        )
    head = (
        "",
        "worker processes",
        "PostgreSQL",
        "journal",
        "stored a day",
        "days on disk",
        "queues in Redis",
        "connections",
    )
    return f"## What it takes\n\n{table(head, rows)}"


def _hour(costs: Costs, assumed: Assumed) -> str:
    rows = []
    for per_second in TARGETS:
        hour = simulate(costs, assumed, fleet(costs, assumed, per_second))
        rows.append(
            (
                f"{per_second:,}/s",
                f"{hour.most_waiting:,.0f}",
                f"{hour.longest_wait_seconds:,.1f} s",
                f"{hour.caught_up_seconds:,} s",
                "yes" if hour.left_waiting < 1 else f"no: {hour.left_waiting:,.0f} wait",
            )
        )
    head = ("", "most deliveries waiting", "longest wait after", "caught up after", "keeps up")
    return (
        "## The same, simulated\n\n"
        "`tools/bench/scaling.py` runs each of these fleets through an hour, second by second: publishing comes "
        "first, and sending gets the rest of PostgreSQL. For five minutes a quarter more is published. For two "
        "minutes nothing can be sent or published; afterwards producers publish everything that they could not.\n\n"
        + table(head, rows)
    )


def _model(run: Run) -> str:
    titles = {case.name: case.title for case in CASES}
    rows = [
        (
            f"{titles[each.scenario]} ({each.contender})",
            f"{each.computed:,.0f}/s",
            f"{each.measured:,.0f}/s",
            number(each.measured / each.computed),
        )
        for each in checked(run)
    ]
    return (
        "## Is the model right?\n\n"
        "The same calculation for the machine of the run, whose cores all processes share, including the receiver, "
        "beside the rate that was measured there. A ratio below 1 is time in which cores waited; for that reason the "
        f"plan uses {Assumed().busy:.0%} of them.\n\n" + table(("", "computed", "measured", "ratio"), rows)
    )


_PLAN: Final = """## What to do, in this order

1. **Start more worker processes.** They coordinate through PostgreSQL, which lets only one worker claim a delivery.
   Add processes until PostgreSQL, not the workers, is busy.
2. **Use PgBouncer** in transaction mode when workers need more connections than PostgreSQL should hold. Workers that
   LISTEN (`HOOKSEAL_LISTEN`) need a session of their own for that. The pooler must pass on `search_path`, or its
   logins must have the right default ([guide](guide/running.md#behind-pgbouncer)).
3. **Use a larger PostgreSQL.** A managed one works: hookseal needs no extension. Replicas, backups and the network
   all carry the journal, so watch it before CPU.
4. **Keep fewer days.** If everything is kept for a month, disk is the first limit. Lower `HOOKSEAL_RETENTION_DAYS`:
   workers delete what is older. Archive elsewhere what you must keep longer.
5. **Watch the deletion.** One connection deletes, half of the time. The alert HooksealRetentionBehind reports that it
   does not keep up. hookseal does not partition its tables by time: a partition key must be part of each primary key,
   so it would be a migration.
6. **Add a second Redis**, or a second queue (`HOOKSEAL_QUEUE`), for some of the workers and producers. Redis runs
   commands on one thread. A ring only says which delivery is due, and any worker may send it; a worker
   replaces a lost ring from PostgreSQL, so nothing has to be copied.
7. **Use several servers, by tenant.** Every primary key of a tenant's data begins with `tenant_id`, except for that of
   `deliveries`, and every statement of the delivery path names the tenant. So each group of tenants can have an
   installation of its own (database, Redis, workers); this works today. Citus could distribute by the same column. Then
   ids of endpoints and deliveries could be unique only within a tenant, the key of `deliveries` and a few joins by the
   id alone must get the tenant, and the tables of the installation (keys, workers, control) must become local or
   reference tables. This has not been tried.

## What this page does not cover

- Receivers. Slow ones cost memory and connections, not CPU: at 1 s and 10,000/s 10,000 requests are in flight. That
  is 20 processes at `HOOKSEAL_CONCURRENCY=500`, even if the CPU is idle.
- TLS to new addresses: a handshake costs more than a delivery (see the row *transport, anew* in
  [performance.md](proof/performance.md)).
- Contention within one server at 64 cores, replication that lags, and the network: the calculation is linear.
- Retries: each costs about as much as a first attempt, without the publishing."""
