"""`hookseal status`: what an operator asks first about the whole installation."""

from collections.abc import Iterator, Sequence
from typing import Final

import typer

from hookseal.admin import Status, TroubledEndpoint, WorkerStatus
from hookseal.cli.context import READS, call
from hookseal.cli.shared.moments import age
from hookseal.cli.shared.output import Json, emit, fields_of, key_values, table
from hookseal.cli.shared.runtime import start

_TENANTS: Final = ("tenant_id", "pending", "due", "waiting", "oldest")
_ENDPOINTS: Final = ("tenant_id", "endpoint_id", "name", "state", "since", "last_outcome", "waiting", "oldest")
_WORKERS: Final = ("worker_id", "version", "requests", "megabytes", "connections", "limited_by")
_REPLAYS: Final = ("replay_id", "tenant_id", "replayed", "matched", "idle")
_MEGABYTE: Final = 1_000_000


def status(*, as_json: Json = False) -> None:
    """Show whose deliveries wait, what fails since when, what limits workers: exit 1 if a person must act.

    It exits with 0 if nobody must act, and with another code if it cannot tell. It counts up to 10,000 of everything,
    and shows the ten tenants that have waited for longest and 20 endpoints in trouble.

    Example: hookseal status
    """
    found = call(start(READS), lambda admin: admin.status())
    emit(found, as_json=as_json, text=lambda: status_text(found))
    raise typer.Exit(1 if found.must_act else 0)


def status_text(found: Status) -> str:
    """Return the status as text: what a person must do comes first."""
    parts = [_must_act(found), *_facts(found), *_tables(found)]
    return "\n\n".join(parts)


def _must_act(found: Status) -> str:
    if not found.must_act:
        return "nobody must act"
    return "\n".join(["a person must act", *(f"  {each.reason}\n    {each.command}" for each in found.must_act)])


def _facts(found: Status) -> Iterator[str]:
    counts = {
        name: f"{fact} or more" if fact == found.overview.most else fact
        for name, fact in fields_of(found.overview).items()
        if name not in {"most", "waiting_for", "oldest_due_seconds"}
    }
    if found.overview.due:
        counts["due"] = f"{counts['due']}, the oldest for {age(found.overview.oldest_due_seconds)}"
    yield "\n".join(key_values(counts))
    attempts = found.first_attempts
    yield "\n".join(
        key_values(
            {
                "first_attempts": f"p50 {_seconds(attempts.p50_seconds)}, p99 {_seconds(attempts.p99_seconds)}, "
                f"of the newest {attempts.number} in five minutes, to endpoints that hold nothing back",
                "secrets_refused": found.secrets_refused,
                "overlaps_ending": f"{found.overlaps_ending} within a day",
                "leader": found.leader,
                "finished_since": found.oldest_finished_at,
            }
        )
    )


def _tables(found: Status) -> Iterator[str]:
    if waiting := found.overview.waiting_for:
        oldest = found.oldest_waiting_seconds
        rows = [
            {"waiting_for": reason, "deliveries": number, "oldest": age(oldest.get(reason))}
            for reason, number in waiting.items()
        ]
        yield table(rows, ("waiting_for", "deliveries", "oldest"))
    if found.tenants:
        others = found.other_tenants
        rest = f"{others.tenants} others: {others.pending} pending, the oldest for {age(others.oldest_seconds) or '-'}"
        text = table([fields_of(each) | {"oldest": age(each.oldest_seconds)} for each in found.tenants], _TENANTS)
        yield "\n".join(
            [text, *([rest] if others.tenants else []), *([] if found.all_tenants else ["of 10,000 tenants"])]
        )
    if found.endpoints:
        text = table([_endpoint(each) for each in found.endpoints], _ENDPOINTS)
        yield f"{text}\nthere are more: hookseal endpoint list --state held" if found.more_endpoints else text
    if found.workers:
        yield table([_worker(each) for each in found.workers], _WORKERS)
    if found.replays:
        yield table([fields_of(each) | {"idle": age(each.idle_seconds)} for each in found.replays], _REPLAYS)


def _endpoint(each: TroubledEndpoint) -> dict[str, object]:
    last = each.last_outcome if each.last_status is None else f"{each.last_status} {each.last_outcome}"
    state = each.state if each.held_for is None else f"{each.state} ({each.held_for})"
    return fields_of(each) | {"state": state, "last_outcome": last, "oldest": age(each.oldest_seconds)}


def _worker(each: WorkerStatus) -> dict[str, object]:
    return fields_of(each) | {
        "requests": _of(each.requests, each.most_requests),
        "megabytes": _of(each.bytes, each.most_bytes, unit=_MEGABYTE),
        "connections": _of(each.connections, each.most_connections),
        "limited_by": _listed(each.limited_by),
    }


def _listed(limits: Sequence[str]) -> str:
    return " ".join(limits) or "nothing"


def _of(used: int | None, most: int | None, *, unit: int = 1) -> str | None:
    return None if used is None or most is None else f"{used // unit} of {most // unit}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"
