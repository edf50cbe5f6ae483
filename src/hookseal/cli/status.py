"""`hookseal status`: what an operator asks first about the whole installation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final
from urllib.parse import urlsplit

import typer

from hookseal.admin import Overview, Status, TroubledEndpoint, WorkerStatus
from hookseal.cli.context import READS, call
from hookseal.cli.shared.moments import age
from hookseal.cli.shared.output import Json, emit, key_values, plain
from hookseal.cli.shared.runtime import start
from hookseal.ground.ids import plural

_MEGABYTE: Final = 1_000_000
_DETAIL: Final = "    "  # before the second line of an entry
_WIDTH: Final = 80


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the status: lines that are always shown, and entries of one or two lines, the most important first."""

    head: Sequence[str]
    entries: Sequence[Sequence[str]] = ()


def status(*, as_json: Json = False) -> None:
    """Show whose deliveries wait, what fails since when, what limits workers: exit 1 if a person must act.

    It exits with 0 if nobody must act, and with another code if it cannot tell. It counts up to 10,000 of everything,
    1,000 of each tenant and endpoint, and leaves out what there is none of. It shows the ten tenants that have waited
    for longest and 20 endpoints in trouble.

    Example: hookseal status
    """
    found = call(start(READS), lambda admin: admin.status())
    emit(found, as_json=as_json, text=lambda: status_text(found))
    raise typer.Exit(1 if found.must_act else 0)


def status_text(found: Status) -> str:
    """Return the status as text."""
    return "\n\n".join(
        "\n".join([*each.head, *(line for entry in each.entries for line in entry)]) for each in sections(found)
    )


def sections(found: Status) -> list[Section]:
    """Return the status in parts: first what a person must do, then who waits, what fails, what limits workers.

    Its lines are for `emit`: what others chose in them is `plain`.
    """
    tables = (_tenants(found), _endpoints(found), _workers(found), _pending(found), _replays(found))
    facts = Section(["installation"], [[line] for line in key_values(_facts(found))])
    return [_must_act(found), *(each for each in tables if each is not None), facts]


def _must_act(found: Status) -> Section:
    head = "a person must act" if found.must_act else "nobody must act"
    concerns = (*found.must_act, *found.worth_a_look)
    lines = [line for each in concerns for line in (f"  {each.reason}", f"{_DETAIL}{each.command}")]
    return Section([head, *lines, *_latency(found)])


def _latency(found: Status) -> Iterator[str]:
    first = found.first_attempts
    verdict = {None: "none to time in five minutes", True: "in time", False: "late"}[first.meets_objective]
    yield f"first attempts: {verdict} (objective: 95% within {first.objective_seconds:.0f} s)"
    if first.number:
        percentiles = ", ".join(
            f"{name} {seconds:.3f} s"
            for name, seconds in (("p50", first.p50_seconds), ("p95", first.p95_seconds), ("p99", first.p99_seconds))
            if seconds is not None
        )
        newest = "the newest" if first.has_more else "all"
        yield f"  {percentiles}, of {newest} {first.number} in five minutes"
    if held := first.waiting_for:
        reasons = ", ".join(f"{number} {reason}" for reason, number in held.items())
        yield from wrap(f"held: {reasons}", _WIDTH, initial_indent="  ", subsequent_indent=_DETAIL)
    if found.overview.due:
        yield f"  the oldest that is due has waited for {age(first.oldest_due_seconds)}"


def _tenants(found: Status) -> Section | None:
    if not found.tenants:
        return None
    most, others = found.most_of_each, found.other_tenants
    rows = [
        [
            plain(each.tenant_id),
            f"{_up_to(each.pending, most)} pending",
            f"{each.due} due",
            f"{each.waiting} held",
            _waits(each.oldest_seconds),
        ]
        for each in found.tenants
    ]
    entries = [[line] for line in _aligned(rows)]
    if others.tenants:
        number = plural(others.tenants, "other", "others")
        entries.append([f"{number}: {_up_to(others.pending, most)} pending  {_waits(others.oldest_seconds)}"])
    return Section(["tenants" if found.all_tenants else "tenants (of more than 2,000)"], entries)


def _waits(seconds: float | None) -> str:
    return "" if seconds is None else f"oldest {age(seconds)}"


def _endpoints(found: Status) -> Section | None:
    if not found.endpoints:
        return None
    rows = _aligned([_endpoint(found, each) for each in found.endpoints])
    entries = [[row, _detail(each)] for row, each in zip(rows, found.endpoints, strict=True)]
    if found.more_endpoints:
        entries.append(["there are more: hookseal endpoint list --state held"])
    return Section(["endpoints"], entries)


def _endpoint(found: Status, each: TroubledEndpoint) -> list[str]:
    state = each.state if each.held_for is None else f"{each.state} ({each.held_for})"
    since = age(max((found.at - each.since).total_seconds(), 0.0)) or ""
    return [each.endpoint_id, state, since, f"{_up_to(each.waiting, found.most_of_each)} held"]


def _detail(each: TroubledEndpoint) -> str:
    answer = " ".join(f"{part}" for part in (each.last_status, each.last_outcome) if part is not None)
    names = (plain(name or "") for name in (each.tenant_id, each.name, urlsplit(each.url).hostname))
    return _DETAIL + ", ".join(filter(None, (*names, answer or "no attempt", _waits(each.oldest_seconds))))


def _workers(found: Status) -> Section | None:
    """Return the workers, first those that are at a limit."""
    if not found.workers:
        return None
    ordered = sorted(found.workers, key=lambda each: not (each.limited_by or each.cannot_record))
    return Section(["workers"], [_worker(each) for each in ordered])


def _worker(each: WorkerStatus) -> list[str]:
    limits = [*each.limited_by, *(["what it cannot record"] if each.cannot_record else [])]
    facts = [f"limited by {', '.join(limits)}" if limits else "no limit", *(["drains"] if each.drains else [])]
    uses = [
        _used(each.requests, each.most_requests, "requests"),
        _used(each.bytes, each.most_bytes, "MB", unit=_MEGABYTE),
        _used(each.connections, each.most_connections, "connections"),
        _used(each.batch_connections, each.most_batch_connections, "for batches"),
    ]
    line = f"{plain(each.worker_id)}  {plain(each.version)}  {', '.join(facts)}"
    known = [use for use in uses if use is not None]
    return [line, f"{_DETAIL}{', '.join(known)}"] if known else [line]


def _used(used: int | None, most: int | None, what: str, *, unit: int = 1) -> str | None:
    return None if used is None or most is None else f"{used // unit} of {most // unit} {what}"


def _pending(found: Status) -> Section | None:
    """Return what is pending by what it waits for: these lines are all of it."""
    counts, oldest = found.overview, found.oldest_waiting_seconds
    if not counts.pending:
        return None
    rows = [
        [f"{counts.due}", "a worker", _waits(counts.oldest_due_seconds)],
        [f"{counts.not_due}", "the next attempt", ""],
        *([f"{number}", reason, _waits(oldest.get(reason))] for reason, number in counts.waiting_for.items()),
    ]
    lines = _aligned([row for row in rows if row[0] != "0"])
    return Section([f"{_or_more(counts.pending, counts)} pending, which wait for"], [[f"  {line}"] for line in lines])


def _replays(found: Status) -> Section | None:
    entries = [
        [each.replay_id, f"{_DETAIL}{each.tenant_id}, {each.replayed} of {each.matched}, idle {age(each.idle_seconds)}"]
        for each in found.replays
    ]
    return Section(["replays"], entries) if entries else None


_COUNTS: Final = (
    "tenants", "endpoints", "disabled_endpoints", "failing_endpoints", "held_endpoints", "stopped_endpoints", "sending",
    "dead_letters", "dead_letters_of_day", "failed", "running_replays", "rotations_due", "live_workers",
)  # fmt: skip


def _facts(found: Status) -> dict[str, object]:
    counts = {name: getattr(found.overview, name) for name in _COUNTS}
    facts: dict[str, object] = {name: _or_more(number, found.overview) for name, number in counts.items() if number}
    facts |= {"master_keys": found.overview.master_keys} if found.overview.master_keys else {}
    facts |= {"secrets_refused": found.secrets_refused} if found.secrets_refused else {}
    facts |= {"overlaps_ending": f"{found.overlaps_ending} within a day"} if found.overlaps_ending else {}
    facts |= {"finished_since": found.oldest_finished_at} if found.oldest_finished_at else {}
    return facts | {"leader": found.leader or "none"}


def _or_more(number: int, counts: Overview) -> str:
    return _up_to(number, counts.most)


def _up_to(number: int, most: int) -> str:
    return f"{number}+" if number >= most else f"{number}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, its values in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
