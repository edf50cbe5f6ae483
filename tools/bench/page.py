"""Writes docs/proof/performance.md from a run. Pure: the same run gives the same page."""

from collections.abc import Callable, Mapping
from typing import Final

from tools.bench import headlines, scaling_page
from tools.bench.bars import BARS
from tools.bench.plan import BARE, CASES, DURABLE, HOOKSEAL, OURS, STOCK, WIDE
from tools.bench.results import (
    POSTGRESQL,
    PRODUCER,
    RECEIVER,
    REDIS,
    RESULTS,
    WORKER,
    Row,
    Run,
    ratio_of_cpu,
    ratio_of_rates,
)
from tools.bench.tables import number, table

PAGE: Final = "docs/proof/performance.md"
_REPEAT: Final = (
    "`make bench` repeats it on your machine and writes this page anew, in at most 30 minutes. `make bench "
    "ARGS=--quick` takes two, `make bench ARGS='--only base'`, which is the table of the base case, about seven; both "
    "write under `.reports/`. The first one makes the environments of the others, too."
)
_CPU: Final = (WORKER, POSTGRESQL, REDIS, RECEIVER)


def pages(run: Run) -> Mapping[str, str]:
    """Return every page that is written from a run, by its path in the repository."""
    return {PAGE: performance(run), scaling_page.PAGE: scaling_page.scaling(run)}


def performance(run: Run) -> str:
    """Return the page."""
    sections: tuple[Callable[[Run], str], ...] = (
        _head,
        _headlines,
        _bars,
        _cases,
        _publishing,
        _latency,
        _backlog,
        _steady,
        _left_out,
        _method,
    )
    return "\n\n".join(text for section in sections if (text := section(run))) + "\n"


def _head(run: Run) -> str:
    made = run.machine
    length = (
        "A quick run: one short round of each, good to see whether it works, not to compare." if run.is_quick else ""
    )
    changed = ", with changes that no commit has" if run.is_dirty else ""
    return "\n".join(
        (
            "<!-- Written by `make bench`: do not edit. -->",
            "# What a delivery costs",
            "",
            f"Measured on {run.date} UTC at commit `{run.commit[:12]}`{changed}, by `{run.command}` in "
            f"{run.seconds / 60:.1f} minutes, on {made.cpus} x {made.cpu}, {made.memory_mb / 1024:.0f} GB, Linux "
            f"{made.kernel}; Python {made.python}, PostgreSQL {made.postgresql}, {made.redis}. All of it, receiver "
            f"included, shares these {made.cpus} cores. Every round stands in [{RESULTS.rpartition('/')[2]}]"
            f"({RESULTS.rpartition('/')[2]}). {length}".rstrip(),
            "",
            _REPEAT,
        )
    )


def _headlines(run: Run) -> str:
    rows = [
        (name, *(headlines.spread(run, name, figure) for figure in headlines.UNITS))
        for name in headlines.ROWS
        if headlines.over_runs(run, name, headlines.RATE)
    ]
    if not rows:
        return ""
    text = (
        "One worker process. As installed, at most 32 requests are in flight to one endpoint "
        "(`HOOKSEAL_ENDPOINT_CONCURRENCY`) and 500 in all (`HOOKSEAL_CONCURRENCY`); `endpoint add --concurrency 1000` "
        "lets one endpoint have all 500. Bare aiohttp and stock arq have 100 in flight."
    )
    if run.row("base", HOOKSEAL) is None:
        text += " No endpoint of this run was as installed: every one had `--concurrency 1000` and `--timeout 20s`."
    parts = [f"## How fast\n\n{text}", table(("", *headlines.UNITS), rows)]
    if len(run.runs) > 1:
        parts += [f"A range is over the last {len(run.runs)} whole runs, as far as they measured it:", _runs(run)]
    elif run.runs:
        parts.append("This is one whole run: another hour, and another machine, give other figures.")
    return "\n\n".join(parts)


def _runs(run: Run) -> str:
    rows = [
        (
            f"`{each.commit[:12]}`, Python {each.python}, {each.cpu}",
            name,
            *(number(figures.get(of), unit) for of, unit in headlines.UNITS.items()),
        )
        for name in headlines.ROWS
        for each in run.runs
        if (figures := each.figures.get(name))
    ]
    return table(("whole run", "", *headlines.UNITS), rows)


def _bars(run: Run) -> str:
    rows = []
    for bar in BARS:
        value = bar.value(run)
        verdict = "-" if value is None or run.is_quick else ("met" if bar.is_met(value) else "**missed**")
        gate = f"{'>=' if bar.is_least else '<='} {number(bar.gate, bar.unit)}"
        rows.append((f"{bar.id}: {bar.what}", gate, number(value, bar.unit), verdict))
    rounds = len(base.rounds) if (base := run.row("base", WIDE)) else 0
    text = (
        'What says "at 1,000" is held to an endpoint with `--concurrency 1000`, not to one as installed; so are the '
        "400 hung and the 500 requests in flight, which are for one endpoint. A ratio is the median of the ratios of "
        f"rounds that ran one after the other, {rounds} in PERF-01 and PERF-08. So it may differ from the ratio of the "
        "medians in the tables below."
    )
    found = table(("requirement", "gate", "measured", "verdict"), rows)
    return f"## Held to the requirements\n\n{found}\n\n{text}"


def _cases(run: Run) -> str:
    parts = [_case(run, case.name, case.title) for case in (*CASES, DURABLE)]
    text = "\n\n".join(part for part in parts if part)
    intro = (
        "Every contender sends the same body by POST. Bare aiohttp does nothing else. The others take a job from their "
        "queue, sign the body with HMAC, with a secret in memory, and record what they record by default. "
        "hookseal claims the delivery, opens the sealed secret, checks the address, signs, sends, records "
        "the attempt and its outcome, logs it and counts it. CPU is in microseconds for each delivery. The CPU of the "
        "receiver is shown, and is not counted for any contender. A process of hookseal and its endpoints are as "
        "installed, except for what a row or the title of a case names. One of the others has 100 requests in flight, "
        "unless the title says otherwise."
    )
    return f"## Deliveries, one thing changed at a time\n\n{intro}\n\n{text}" if text else ""


def _case(run: Run, name: str, title: str) -> str:
    rows = run.rows_of(name)
    if not rows:
        return ""
    bare, stock = run.row(name, BARE), run.row(name, STOCK)
    ratios = ("rate to bare", "rate to stock arq", "worker CPU to bare")
    head = ("", "per second", *(f"{part} us" for part in _CPU), *ratios)
    lines = [
        (
            _named(run, row),
            number(row.per_second),
            *(number(row.microseconds(part)) for part in _CPU),
            number(ratio_of_rates(row, bare)),
            number(ratio_of_rates(row, stock)),
            number(ratio_of_cpu(row, bare)),
        )
        for row in rows
    ]
    return f"### {title[0].upper()}{title[1:]}\n\n{table(head, lines)}{_details(run, name)}"


def _named(run: Run, row: Row) -> str:
    if row.contender in OURS:
        return f"**{row.contender}**"
    return f"{row.contender} {run.versions.get(row.contender, '')}".strip()


def _details(run: Run, name: str) -> str:
    row = run.ours(name)
    if row is None:
        return ""
    figures = (
        ("wal_bytes", "bytes of journal (WAL) a delivery"),
        ("publish_wal_bytes", "to publish it"),
        ("stored_bytes", "bytes on disk"),
        ("redis_commands", "Redis commands"),
        ("connections_per_1000", "connections for 1,000 requests"),
    )
    found = [f"{number(value)} {what}" for figure, what in figures if (value := row.figure(figure)) is not None]
    return f"\n\n{row.contender}: {', '.join(found)}; rounds: {len(row.rounds)}." if found else ""


def _publishing(run: Run) -> str:
    rows = [
        (
            row.contender,
            number(row.per_second),
            *(number(row.microseconds(part)) for part in (PRODUCER, POSTGRESQL, REDIS)),
            number(row.figure("p50_ms")),
            number(row.figure("p99_ms")),
            number(row.figure("wal_bytes")),
        )
        for row in run.rows_of("publish")
    ]
    head = ("events of 1 KB", "per second", "producer us", "postgresql us", "redis us", "p50 ms", "p99 ms", "WAL bytes")
    return f"## Publishing\n\n{table(head, rows)}\n\nThe milliseconds are those of a call." if rows else ""


def _latency(run: Run) -> str:
    rows = [
        (
            f"{row.scenario.rpartition('-')[2]}/s {row.contender}",
            number(row.figure("p50_ms")),
            number(row.figure("p99_ms")),
            number(row.figure("published_per_second")),
            number(row.microseconds(WORKER)),
            number(row.microseconds(POSTGRESQL)),
            number(row.total("unsent")),
            number(row.total("refused")),
        )
        for name in ("latency-20", "latency-500")
        for row in run.rows_of(name)
    ]
    head = ("", "p50 ms", "p99 ms", "published/s", "worker us", "postgresql us", "unsent", "refused")
    text = (
        "From the call that publishes to the request at the receiver. If less was published than planned, producers "
        "did not keep up. `unsent`: not sent within twice the time of publishing. `refused`: not published because no "
        "connection was free; both are sums of all rounds. Half a second before a round, 21 events are published: "
        "after ten seconds with nothing to ring, the first event without a ring takes up to 0.3 s."
    )
    return f"## From publish to request\n\n{text}\n\n{table(head, rows)}" if rows else ""


def _backlog(run: Run) -> str:
    rows = [
        (
            f"{int(row.scenario.rpartition('-')[2]):,}",
            number(row.per_second),
            *(number(row.microseconds(part)) for part in (WORKER, POSTGRESQL, REDIS)),
            str(len(row.rounds)),
        )
        for row in run.rows
        if row.scenario.startswith("backlog-")
    ]
    head = ("waiting deliveries", "per second", *(f"{part} us" for part in (WORKER, POSTGRESQL, REDIS)), "rounds")
    text = "Published by SQL for 1,000 endpoints, without a ring: the worker finds them itself."
    return f"## With a backlog\n\n{text}\n\n{table(head, rows)}" if rows else ""


def _steady(run: Run) -> str:
    figures = (
        ("idle", "worker_cpu_percent", "idle: worker", "% CPU"),
        ("idle", "postgresql_cpu_percent", "idle: PostgreSQL", "% CPU"),
        ("idle", "redis_cpu_percent", "idle: Redis", "% CPU"),
        ("hung", "worker_cpu_percent", "400 requests that hang: worker", "% CPU"),
        ("idle", "redis_commands_per_second", "idle: Redis commands", "/s"),
        ("idle", "statements_per_second", "idle: SQL statements", "/s"),
        ("statements", "statements", "statements of a delivery, saturated, as installed", "", HOOKSEAL),
        ("statements", "statements", "statements of a delivery, saturated, with `--concurrency 1000`", "", WIDE),
        ("statements-20", "statements", "statements of a delivery, at 20/s", ""),
        ("memory-1kb", "rest_mb", "memory at rest", "MB"),
        ("memory-1kb", "most_mb", "memory, 500 x 1 KB for a receiver that takes 4 s", "MB"),
        ("memory-256kb", "most_mb", "memory, 500 x 256 KB for a receiver that takes 4 s", "MB"),
    )
    rows = [
        (what, number(value, unit))
        for scenario, figure, what, unit, *contender in figures
        if (value := run.figure(scenario, figure, *contender)) is not None
    ]
    return f"## At rest, and in memory\n\n{table(('one worker', ''), rows)}" if rows else ""


def _left_out(run: Run) -> str:
    lines = [
        f"- {each.scenario}: {each.contender}: {'failed: ' if each.is_failure else ''}{each.reason}"
        for each in run.left_out
    ]
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def _method(run: Run) -> str:
    named = (f"`{name}={value}`" if value else f"`{name}`" for name, value in run.settings.items())
    settings = ", ".join(named) or "none"
    return _METHOD.format(settings=settings, bodies=run.bodies)


_METHOD: Final = """## How it is measured

- Rounds take turns: each contender runs once, then all of them again. Contenders in the first table may have more
  rounds than the others. A figure is the median of its rounds; a ratio
  to a contender is the median of the ratios of rounds that ran one after the other. Rates vary with the machine, ratios
  less. Latency at 500/s, rest and memory have one round each.
- Every round has a database and a Redis of its own, which contain only endpoints; the rounds of one backlog share
  theirs. All jobs are queued before a worker starts. The seconds run from the first request to the last at the
  receiver. CPU counts from the moment that a worker is ready until the receiver has all requests and, for hookseal,
  until each outcome is recorded. A backlog is measured for some seconds after its first 500 requests, and filled
  meanwhile; what is in flight at the end is not awaited.
- CPU is what `/proc` reports for the worker and for all processes of PostgreSQL and Redis, including those that have
  ended. The connection of the benchmark itself is left out.
- Settings of every worker that are not the defaults: {settings}. Of PostgreSQL: `fsync`, `synchronous_commit` and
  `full_page_writes` are off, except where a title says "with fsync". The endpoints of the 400 hung and of the 500
  requests in flight have `--timeout 20s` and `--concurrency 1000`. All endpoints are places of one host, so that they
  share kept connections.
- pgqueuer may have twice as many requests in flight: it accepts no smaller limit with batches of that size.
- {bodies} With 1,000 endpoints one event has 1,000 deliveries.
- "Transport" is the HTTP client of hookseal alone, with kept connections or with a new one for each request.
- Statements are counted in the log of PostgreSQL, in rounds that do not measure CPU.
- Each contender has an environment of its own, from hashed pins under `requirements/bench/`; all use the same
  versions of aiohttp and uvloop. saq keeps no results, taskiq has no result backend, procrastinate and pgqueuer
  record what they record by default."""
