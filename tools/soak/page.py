"""Writes docs/proof/soak.md and its picture from a record. Pure: the same record gives the same page."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

from tools.bench.tables import number, table
from tools.soak.record import MOST_GROWTH, MOST_MEMORY, MOST_SLOWER, WARM_UP, WHOLE, Sample, Soak, problems

PAGE: Final = "docs/proof/soak.md"
PICTURE: Final = "docs/proof/soak.svg"
_ROWS: Final = 24
_FONT: Final = 'font-family="sans-serif" font-size="13"'
_WIDTH: Final = 860
_LEFT: Final = 70
_PLOT: Final = 760
_HEIGHT: Final = 150
_STEP: Final = 210
_CHARTS: Final[tuple[tuple[str, str, Callable[[Sample], float]], ...]] = (
    ("Database, MB", "#1f6feb", lambda each: each.size_mb),
    ("Deliveries stored", "#8b949e", lambda each: each.stored),
    ("Claim statement, p99, ms", "#d29922", lambda each: each.claim_p99_ms),
    ("Memory of the worker, MB", "#3fb950", lambda each: each.worker_mb),
)


def pages(soak: Soak) -> Mapping[str, str]:
    """Return the page and its picture, by their paths in the repository."""
    return {PAGE: page(soak), PICTURE: picture(soak)}


def page(soak: Soak) -> str:
    """Return the page."""
    return "\n\n".join((_head(soak), _found(soak), _samples(soak), _METHOD)) + "\n"


def picture(soak: Soak) -> str:
    """Return the charts of the size of the database, of what is stored, of the p99 of claims, and of the memory."""
    height = len(_CHARTS) * _STEP + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" {_FONT}>',
        f"<title>A soak of {soak.last.delivered:,} deliveries, {escape(soak.commit[:12])}, {escape(soak.date)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, (title, colour, value) in enumerate(_CHARTS):
        lines += _chart(title, colour, [(each.seconds, value(each)) for each in soak.samples], top=place * _STEP)
    lines.append(f'<text x="{_LEFT}" y="{height - 8}">0 s</text>')
    lines.append(f'<text x="{_LEFT + _PLOT}" y="{height - 8}" text-anchor="end">{soak.last.seconds:,.0f} s</text>')
    return "\n".join((*lines, "</svg>\n"))


def _chart(title: str, colour: str, points: Sequence[tuple[float, float]], *, top: int) -> list[str]:
    longest = points[-1][0]
    most = max(value for _, value in points) or 1.0
    bottom = top + 40 + _HEIGHT
    line = " ".join(f"{_LEFT + x / longest * _PLOT:.1f},{bottom - y / most * _HEIGHT:.1f}" for x, y in points)
    return [
        f'<text x="10" y="{top + 26}" font-weight="bold">{escape(title)}</text>',
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{_LEFT + _PLOT}" y2="{bottom}" stroke="#8b949e"/>',
        f'<text x="{_LEFT - 6}" y="{top + 46}" text-anchor="end">{number(most)}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
    ]


def _head(soak: Soak) -> str:
    made, last = soak.machine, soak.last
    changed = ", with changes that no commit has" if soak.is_dirty else ""
    reduced = (
        f" **This is a reduced form**: the whole one, `make soak`, makes {WHOLE:,} deliveries."
        if last.delivered + soak.per_second * last.seconds / len(soak.samples)
        < WHOLE  # the last sample is before the end
        else ""
    )
    return f"""# A soak

Deliveries come, end and leave, with the default autovacuum of PostgreSQL: do the database and the memory
of the worker stay bounded, and do claims stay as fast?

`{soak.command}` at commit {soak.commit[:12]}{changed}, {soak.date} UTC: {last.delivered:,} deliveries in
{last.seconds:,.0f} seconds, kept for {soak.keep_seconds} seconds each.{reduced}

{made.cpu}, {made.cpus} CPUs, {made.memory_mb:,} MB, Linux {made.kernel}; Python {made.python}, PostgreSQL
{made.postgresql}, {made.redis}.

![The size of the database, deliveries stored, the p99 of claims, and the memory of the worker](soak.svg)"""


def _found(soak: Soak) -> str:
    missed = problems(soak)
    verdict = "\n".join(f"- **Not met:** {each}." for each in missed) if missed else "All bounds are met."
    warm = soak.warm or soak.samples
    rows = (
        ("database, last third to the third before, largest", f"{soak.growth:.2f}x", f"{MOST_GROWTH}x"),
        ("p99 of claims, last third to the first, median", f"{soak.slowdown:.2f}x", f"{MOST_SLOWER}x"),
        (
            "memory of the worker, last third to the first, largest",
            f"{soak.memory_growth:.3f}x",
            f"{MOST_MEMORY}x",
        ),
        ("deliveries a second", number(soak.delivered_per_second), ""),
        ("removed a second, at most", number(soak.removed_per_second), ""),
        ("kept beyond the retention, at most, s", number(max(each.late_seconds for each in warm)), ""),
        ("MB of the database for 1,000 deliveries stored, at the end", number(_per_thousand(soak)), ""),
    )
    return f"""## What it found

{table(("", "measured", "bound"), rows)}

{verdict}

The thirds are those of the time after {WARM_UP} retentions."""


def _per_thousand(soak: Soak) -> float:
    return soak.last.size_mb * 1_000 / soak.last.stored if soak.last.stored else 0.0


def _samples(soak: Soak) -> str:
    every = -(-len(soak.samples) // _ROWS)
    rows = [
        (
            f"{each.seconds:,.0f}",
            f"{each.delivered:,}",
            f"{each.removed:,}",
            f"{each.stored:,}",
            f"{each.size_mb:,.0f}",
            f"{each.dead_rows:,}",
            str(each.vacuums),
            number(each.claim_p50_ms),
            number(each.claim_p99_ms),
            number(each.worker_mb),
        )
        for each in soak.samples[every - 1 :: every]
    ]
    head = (
        *("s", "delivered", "removed", "stored", "MB", "dead rows", "autovacuums"),
        *("claim p50 ms", "claim p99 ms", "worker MB"),
    )
    return f"## Over time\n\n{table(head, rows)}"


_METHOD: Final = """## How it is measured

- One worker process delivers to a receiver that answers at once. Events of 1 KB are published by SQL, at a steady
  rate or as fast as the machine delivers; the outbox finds them.
- The retention of a worker runs beside it, with its own statements. In the functions of the schema only the unit is
  replaced: a day lasts a few seconds. So autovacuum, which looks once a minute, has less time for its work than in
  reality, where a retention lasts weeks.
- The durations of claims are in the log of PostgreSQL, for one statement in two: the execution of the statement, with
  all deliveries of its batch.
- The memory is what is resident of the worker, which may have 200 requests in flight, at each sample. The retention
  runs in another process and is not counted.
- PostgreSQL has its default settings for autovacuum, and runs without fsync."""
