"""Writes docs/proof/performance.md and docs/scaling.md from a run. Pure: the same run gives the same pages."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tools.bench import results, scaling
from tools.bench.plan import BARE, BY_API, CLIENT, HOOKSEAL, STOCK
from tools.bench.results import BARS, P99_MS, RESULTS, Row, Run, ratio_of_cpu, ratio_of_rates
from tools.harness import API, CALLER, POSTGRESQL, PRODUCER, RECEIVER, REDIS, WORKER
from tools.records import number, table
from tools.soak import Soak

PAGE: Final = "docs/proof/performance.md"
SCALING: Final = "docs/scaling.md"

Column = tuple[str, Callable[[Row], float | None]]


def pages(run: Run, soak: Soak) -> dict[str, str]:
    """Return every page that is written from a run and a soak, by its path in the repository."""
    return {PAGE: performance(run), SCALING: scaling.page(run, soak)}


def performance(run: Run) -> str:
    """Return the page."""
    latencies = [row for row in run.rows if row.scenario.startswith("latency-")]
    backlogs = [row for row in run.rows if row.scenario.startswith(_STORES)]
    sections = (
        _head(run),
        _headlines(run),
        _bars(run),
        _cases(run),
        _section("Publishing", "Events of 1 KB. The milliseconds are those of a call.", run.rows_of("publish"), _CALLS),
        _section("The HTTP API", _API + _LIFTED * (run.row("api", BY_API) is not None), run.rows_of("api"), _MESSAGES),
        _api_figures(run),
        _section(
            "From publish to request", _LATENCY, latencies, _LATENCIES,
            lambda row: f"{run.titles[row.scenario]}: {row.contender}",
        ),
        _section(
            "With a backlog, beside history, and beside an old snapshot", _BACKLOG, backlogs, _BACKLOGS,
            lambda row: run.titles[row.scenario],
        ),
        _steady(run),
        _left_out(run),
        _method(run),
    )  # fmt: skip
    return "\n\n".join(text for text in sections if text) + "\n"


def _figure(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.figure(name)


def _us(*parts: str) -> tuple[Column, ...]:
    return tuple((f"{part} us", lambda row, part=part: row.microseconds(part)) for part in parts)


_RATE: Final[Column] = ("per second", lambda row: row.per_second)
_P50_P99: Final[tuple[Column, ...]] = (("p50 ms", _figure("p50_ms")), ("p99 ms", _figure("p99_ms")))
_CALLS: Final = (_RATE, *_us(PRODUCER, POSTGRESQL, REDIS), *_P50_P99, ("WAL bytes", _figure("wal_bytes")))
_MESSAGES: Final = (_RATE, *_us(API, CALLER, PRODUCER, POSTGRESQL, REDIS), *_P50_P99)
_LATENCIES: Final[tuple[Column, ...]] = (
    *_P50_P99,
    ("published/s", _figure("published_per_second")),
    *_us(WORKER, POSTGRESQL),
    ("unsent", lambda row: row.total("unsent")),
    ("refused", lambda row: row.total("refused")),
)
_STORES: Final = ("backlog-", "retained", "snapshot")  # the cases that do not begin with an empty database
_BACKLOGS: Final[tuple[Column, ...]] = (
    _RATE,
    *_us(WORKER, POSTGRESQL, REDIS),
    ("PostgreSQL us, last round", lambda row: row.rounds[-1].microseconds(POSTGRESQL)),
    ("delivered before it", lambda row: row.rounds[-1].figures.get("delivered_before")),
)
_DETAILS: Final = {
    "wal_bytes": "bytes of journal (WAL) a delivery",
    "publish_wal_bytes": "to publish it",
    "kept_bytes": "bytes kept beside the body, packed",
    "log_bytes": "bytes of log",
    "redis_commands": "Redis commands",
    "connections_per_1000": "connections for 1,000 requests",
    "resumed_per_1000": "of them resumed a TLS session",
    "slots_percent": "% of the slots used",
}


def _section(
    title: str,
    text: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    name: Callable[[Row], str] = lambda row: row.contender,
) -> str:
    if not rows:
        return ""
    head = ("", *(column for column, _ in columns), "rounds")
    lines = [(name(row), *(number(value(row)) for _, value in columns), str(len(row.rounds))) for row in rows]
    return "\n\n".join(part for part in (f"## {title}", text, table(head, lines)) if part)


def _head(run: Run) -> str:
    made, file = run.machine, RESULTS.rpartition("/")[2]
    changed = ", with changes that no commit has" if run.is_dirty else ""
    quick = (
        " A quick run: one short round of each, good to see whether it works, not to compare." if run.is_quick else ""
    )
    return f"""<!-- Written by `make bench`: do not edit. -->
# What a delivery costs

Measured on {run.date} UTC at commit `{run.commit[:12]}`{changed}, by `{run.command}` in {run.seconds / 60:.1f} minutes,
on {made.cpus} x {made.cpu}, {made.memory_mb / 1024:.0f} GB, Linux {made.kernel}; Python {made.python}, PostgreSQL
{made.postgresql}, {made.redis}. All of it, receiver included, shares these {made.cpus} cores. Every round stands in
[{file}]({file}).{quick}

`make bench` repeats it on your machine and writes this page anew, in at most 40 minutes. `make bench ARGS=--quick`
takes two, `make bench ARGS='--only base'`, which is the first table, about ten; `make bench ARGS=--long` measures with
ten million deliveries retained, and with a snapshot open for an hour. These write under `.reports/`. The first one
makes the environments of the others, too."""


def _headlines(run: Run) -> str:
    all_ = {name: [results.spread(run, name, figure) for figure in results.UNITS] for name in results.ROWS}
    rows = [(name, *figures) for name, figures in all_.items() if figures[0] != number(None)]
    if not rows:
        return ""
    text = (
        f"One worker process. {run.conditions}. hookseal as installed has at most 500 requests in flight in all "
        "(`HOOKSEAL_CONCURRENCY`), and to one endpoint 32 at first, [more while it answers "
        "quickly](../lifecycle.md#lanes)."
    )
    parts = [f"## How fast\n\n{text}", table(("", *results.UNITS), rows)]
    if len(run.runs) > 1:
        each_run = [
            (f"`{of.commit[:12]}`, Python {of.python}, {of.cpu}", name, *_values(of.figures[name]))
            for name in results.ROWS
            for of in run.runs
            if name in of.figures
        ]
        parts.append(f"A range is over the last {len(run.runs)} whole runs, as far as they measured it:")
        parts.append(table(("whole run", "", *results.UNITS), each_run))
    elif run.runs:
        parts.append("This is one whole run: another hour, and another machine, give other figures.")
    return "\n\n".join(parts)


def _values(figures: dict[str, float]) -> list[str]:
    return [number(figures.get(of), unit) for of, unit in results.UNITS.items()]


def _bars(run: Run) -> str:
    rows = []
    for bar in BARS:
        value = bar.value(run)
        verdict = "-" if value is None or run.is_quick else ("met" if bar.is_met(value) else "**missed**")
        gate = f"{'>=' if bar.is_least else '<='} {number(bar.gate, bar.unit)}"
        rows.append((f"{bar.id}: {bar.what}", gate, number(value, bar.unit), verdict))
    return f"""## Held to the requirements

{table(("requirement", "gate", "measured", "verdict"), rows)}

All is as installed, but for the 400 hung and the 500 in flight, which are for one endpoint that may have them, and for
the worker at 50 ms, which has `HOOKSEAL_CONCURRENCY=200`: it could not send 10,000/s to fill 500. A ratio
is the median of the ratios of rounds that ran one after the other. So it may differ from the ratio of the medians in
the tables below. That of the snapshot is of the last rounds, when it is oldest."""


def _cases(run: Run) -> str:
    others = ("latency-", *_STORES)
    parts = [
        _case(run, name, title)
        for name, title in run.titles.items()
        if run.rows_of(name) and not name.startswith(others)
    ]
    return "\n\n".join((_CASES, *parts)) if parts else ""


def _case(run: Run, name: str, title: str) -> str:
    bare, stock = run.row(name, BARE), run.row(name, STOCK)
    columns: list[Column] = [
        _RATE,
        *_us(WORKER, POSTGRESQL, REDIS, RECEIVER),
        ("rate to bare", partial(ratio_of_rates, theirs=bare)),
        ("rate to stock arq", partial(ratio_of_rates, theirs=stock)),
        ("worker CPU to bare", partial(ratio_of_cpu, theirs=bare)),
    ]
    rows = run.rows_of(name)
    if any(PRODUCER in each.cpu for row in rows for each in row.rounds):
        columns.insert(2, _us(PRODUCER)[0])
    if (client := run.row(name, CLIENT)) is not None:
        columns.append(("worker CPU to the client", partial(ratio_of_cpu, theirs=client)))
    text = _section("", "", rows, columns, partial(_named, run)).removeprefix("## \n\n")
    ours = run.row(name, HOOKSEAL)
    details = [] if ours is None else [(value, what) for of, what in _DETAILS.items() if (value := ours.figure(of))]
    listed = ", ".join(f"{number(value)} {what}" for value, what in details)
    found = f"\n\n{HOOKSEAL}: {listed}." if listed else ""
    return f"### {title[0].upper()}{title[1:]}\n\n{text}{found}"


def _named(run: Run, row: Row) -> str:
    version = run.versions.get(row.contender, "")
    return f"**{row.contender}**" if row.contender.startswith(HOOKSEAL) else f"{row.contender} {version}".strip()


def _steady(run: Run) -> str:
    figures = (
        ("idle: worker", "% CPU", "idle", "worker_cpu_percent"),
        ("idle: PostgreSQL", "% CPU", "idle", "postgresql_cpu_percent"),
        ("idle: Redis", "% CPU", "idle", "redis_cpu_percent"),
        ("400 requests that hang: worker", "% CPU", "hung", "worker_cpu_percent"),
        ("idle: Redis commands", "/s", "idle", "redis_commands_per_second"),
        ("idle: SQL statements", "/s", "idle", "statements_per_second"),
        ("statements of a delivery, saturated", "", "statements", "statements"),
        ("statements of a delivery, at 20/s", "", "statements-20", "statements"),
        ("memory at rest", "MB", "memory-1kb", "rest_mb"),
        ("memory, 500 x 1 KB for a receiver that takes 4 s", "MB", "memory-1kb", "most_mb"),
        ("memory, 500 x 256 KB for a receiver that takes 4 s", "MB", "memory-256kb", "most_mb"),
    )
    found = [(what, number(value, unit)) for what, unit, *of in figures if (value := run.figure(*of)) is not None]
    return f"## At rest, and in memory\n\n{table(('one worker', ''), found)}" if found else ""


def _api_figures(run: Run) -> str:
    figures = [
        ("messages at 50/s, p50", "ms", "api-50", "p50_ms", HOOKSEAL),
        ("messages at 50/s, p99", "ms", "api-50", "p99_ms", HOOKSEAL),
        ("400 clients that send a body byte by byte: the API", "% CPU", "api-slow", "api_cpu_percent", HOOKSEAL),
        ("memory after the messages above", "MB", "api", "resident_mb", BY_API),
        ("memory after the lists and pages below", "MB", "api-reads", "resident_mb", HOOKSEAL),
    ]
    reads = run.row("api-reads", HOOKSEAL)
    if reads is not None:
        sizes = [number(reads.figure(name)) for name in ("endpoints", "stored")]
        beside = "with {} endpoints, and {} deliveries to 20 of them".format(*sizes)
        calls = [name for name in reads.rounds[0].figures if name.endswith(P99_MS)]
        figures += [
            (f"`{name.removesuffix(P99_MS)}`, p99, {beside}", "ms", "api-reads", name, HOOKSEAL) for name in calls
        ]
    found = [(what, number(value, unit)) for what, unit, *of in figures if (value := run.figure(*of)) is not None]
    return table(("one process of the API", ""), found) if found else ""


def _left_out(run: Run) -> str:
    lines = [
        f"- {each.scenario}: {each.contender}: {'failed: ' if each.is_failure else ''}{each.reason}"
        for each in run.left_out
    ]
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def _method(run: Run) -> str:
    named = (f"`{name}={value}`" if value else f"`{name}`" for name, value in run.settings.items())
    return _METHOD.format(settings=", ".join(named) or "none", bodies=run.bodies)


_CASES: Final = """## Deliveries, case by case

Every contender sends the same body by POST. Bare aiohttp does nothing else. The others take a job from their queue,
sign the body with HMAC, with a secret in memory, and record what they record by default. hookseal claims the delivery,
opens the sealed secret, checks the address, signs, sends, records the attempt and its outcome, logs it and counts it.
CPU is in microseconds for each delivery. The CPU of the receiver is shown, and is not counted for any contender. A
process of hookseal and its endpoints are as installed, PostgreSQL has no fsync, and one of the others has as many
requests in flight as hookseal to one endpoint, unless the title says otherwise. "Published meanwhile": 50 tasks of one
Publisher publish as fast as they can while the worker delivers, and the rate is that of both together."""
_API: Final = """\
Messages of 1 KB by `message.create`: 64 connections of one client, each of which sends the next request when the last
one is answered, with a token that is looked up for each. Beside it the same events by a Publisher, without HTTP.
`caller` is the client, in a process of its own. In the second table calls follow one after the other."""
_LIFTED: Final = " `HOOKSEAL_API_RATE` is 1,000,000, for one token makes all messages."
_LATENCY: Final = """\
From the call that publishes to the request at the receiver. If less was published than planned, producers did not keep
up. `unsent`: not sent within twice the time of publishing. `refused`: not published because no connection was free;
both are sums of all rounds. Half a second before a round, 21 events are published: after ten seconds with nothing to
ring, the first event without a ring takes up to 0.3 s. Saturation is the rate of "published meanwhile" in the case of
100 endpoints. Where some endpoints fail, only what the others got is counted."""
_BACKLOG: Final = """\
Published by SQL for 1,000 endpoints, without a ring: the worker finds them itself. Retained are deliveries that ended
before, 20 to an event of 1 KB. The snapshot is a transaction that is open from before the first round of its case to
the end of the last one, as that of `pg_dump`."""
_METHOD: Final = """## How it is measured

- Rounds take turns: each contender runs once, then all of them again. Contenders in the first table may have more
  rounds than the others. A figure is the median of its rounds; a ratio to a contender is the median of the ratios of
  rounds that ran one after the other. Rates vary with the machine, ratios less. Rest, memory, 10,000 places and 12,000
  endpoints have one round each.
- Every round has a database and a Redis of its own, which contain only endpoints; the rounds of one backlog share
  theirs. All jobs are queued before a worker starts. Where connections are kept to many places, where endpoints are
  slow, and at half of saturation and 200/s, each endpoint has had a delivery before. The seconds run from the first
  request to the last at the receiver. CPU counts from the moment that a worker is ready until the receiver has all
  requests and, for hookseal, until each outcome is recorded. A backlog is measured for some seconds after its first 500
  requests, and filled meanwhile; what is in flight at the end is not awaited.
- CPU is what `/proc` reports for the worker and for all processes of PostgreSQL and Redis, including those that have
  ended. The connection of the benchmark itself is left out.
- Settings of every worker that are not the defaults: {settings}. Of PostgreSQL: `fsync`, `synchronous_commit` and
  `full_page_writes` are off, except where a title says "with fsync". The endpoints of the 400 hung and of the 500
  requests in flight have `--timeout 20s` and `--concurrency 1000`.
- Places of their own are 100 addresses of the loopback with up to 100 ports, in one certificate; no name is looked up.
  The receiver keeps connections open, or closes each after its answer: then a client may resume a TLS session.
- PostgreSQL is 2 ms away behind a process that passes on each byte 1 ms later, in both directions.
- The older PostgreSQL is 15 of Debian, or 16 of the wheel with the embedded one where that is not installed.
- pgqueuer may have twice as many requests in flight: it accepts no smaller limit with batches of that size.
- {bodies} With several endpoints of a tenant one event has a delivery for each of them.
- "The client of hookseal alone" sends with its transport, and does nothing else.
- Bytes kept are those of all tables and indexes after `VACUUM FULL`, for each delivery and its event.
- Statements are counted in the log of PostgreSQL, in rounds that do not measure CPU.
- Each contender has an environment of its own, from hashed pins under `requirements/bench/`; all use the same
  versions of aiohttp and uvloop. saq keeps no results, taskiq has no result backend, procrastinate and pgqueuer
  record what they record by default."""
