"""`hookseal replay`: jobs that send many finished deliveries again."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from hookseal.admin import Admin, ReplayCount, ReplayJob
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, key_values
from hookseal.cli.shared.progress import progress
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import DEFAULT_RATE, FINAL, NOT_DELIVERED, JobState, rate
from hookseal.errors import Malformed
from hookseal.ground.ids import EVERY_TENANT, plural

app: Final = typer.Typer(help="Send many finished deliveries again, by a job.", no_args_is_help=True)

_Id = Annotated[str, typer.Argument(help="The id of the job.")]
_FINAL: Final = ", ".join(FINAL)
_LOOK_SECONDS: Final = 1.0
_DEFAULT: Final = f"{DEFAULT_RATE}/s"
_NONE_RUNS: Final = "no replay job runs: `hookseal replay list` shows those that have ended"
_COLUMNS: Final = Columns(
    ("replay_id", "state", "matched", "replayed", "started_at", "tenant_id"),
    ("skipped", "remaining", "rate", "moved_at", "ended_at"),
)


@app.command(name="start")
def start_(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant whose deliveries are replayed.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Only deliveries to this endpoint, by its id or its uid.")
    ] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    event_id: Annotated[str | None, typer.Option(help="Only this event.")] = None,
    state: Annotated[
        list[State] | None,
        typer.Option(
            help=f"Only deliveries that ended in this state: {_FINAL}. Repeatable. Without it: dead_letter, failed and "
            "cancelled.",
        ),
    ] = None,
    all_states: Annotated[
        bool,
        typer.Option(
            "--all-states", help="Deliveries that ended in any state, also those that were delivered; not with --state."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Only deliveries made at this time or later: 2026-01-31T12:00:00Z, or 1h, 7d (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only deliveries made before this time, written as for --since; by default now.")
    ] = None,
    per_second: Annotated[
        str, typer.Option("--rate", metavar="N/s", help="The most deliveries to send in a second, 1 to 1000.")
    ] = _DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be replayed.")] = False,
    as_json: Json = False,
) -> None:
    """Start a job that sends finished deliveries again, each with a new budget of attempts and the same webhook-id.

    It takes the deliveries of the tenant that ended without being delivered, also those that never had an attempt;
    --state and --all-states choose other states. A delivery must meet every condition that is given. One whose event
    was delivered to the same endpoint since, as a copy (`delivery replay --new-id`) or as the original, is left out,
    unless delivered ones are chosen. Those of disabled and deleted endpoints are skipped and counted.

    The command returns at once, and the workers execute the job: `hookseal replay status REPLAY_ID` shows how far it
    is.

    Example: hookseal replay start --tenant acme --since 1h --rate 50/s
    """
    selection: dict[str, Any] = {
        "tenant_id": tenant,
        "endpoint_id": endpoint,
        "event_type": event_type,
        "event_id": event_id,
        "states": _states(state, all_states=all_states),
        "since": moment(since, "since"),
        "until": moment(until, "until"),
    }
    limit = rate(per_second)
    if dry_run:
        counted = call(start(READS), lambda admin: admin.replays.count(**selection))
        emit(counted, as_json=as_json, text=lambda: _facts_text(counted))
        return
    job = call(
        start(CHANGES),
        lambda admin: admin.replays.start(**selection, actor=operator_name(), rate_per_second=limit),
    )
    emit(
        job,
        as_json=as_json,
        text=f"replay job {job.replay_id} runs: {plural(job.matched, 'delivery', 'deliveries')}, "
        f"at most {job.rate} a second\nsee `hookseal replay status {job.replay_id}`",
    )


@app.command()
def status(
    *,
    replay: Annotated[str | None, typer.Argument(help="The id of the job; without it, running jobs.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress of the job until it has ended.")] = False,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show how far a replay job is, or all jobs that run.

    Example: hookseal replay status 0197c1f0-5e6a-7c3b-9d2e-4f5061728394 --wait
    """
    if replay is None and wait:
        raise Malformed("name the job to wait for: `hookseal replay list` shows their ids", field="replay")
    if replay is None:
        _list(EVERY_TENANT, JobState.RUNNING, limit=50, cursor=None, wide=wide, as_json=as_json, none=_NONE_RUNS)
        return
    job = call(start(READS), lambda admin: _get(admin, replay, until_it_has_ended=wait))
    emit(job, as_json=as_json, text=lambda: _facts_text(job))


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="Only jobs of this tenant; '*' is every tenant.")] = EVERY_TENANT,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state: running, done or cancelled.")] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List replay jobs, newest first.

    Example: hookseal replay list --tenant acme --state running
    """
    _list(tenant, state, limit=limit, cursor=cursor, wide=wide, as_json=as_json, none="no replay jobs")


@app.command()
def cancel(*, replay: _Id, as_json: Json = False) -> None:
    """Cancel a running replay job. What it has replayed stays replayed.

    Example: hookseal replay cancel 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    job = call(
        start(CHANGES),
        lambda admin: admin.replays.cancel(tenant_id=EVERY_TENANT, replay_id=replay, actor=operator_name()),
    )
    emit(job, as_json=as_json, text=lambda: _facts_text(job))


async def _get(admin: Admin, replay: str, *, until_it_has_ended: bool) -> ReplayJob:
    """Return the job, also once it has ended; meanwhile report how far it is. Raises `NotFound`, `Unavailable`."""
    job = await admin.replays.get(tenant_id=EVERY_TENANT, replay_id=replay)
    if not until_it_has_ended:
        return job
    reported = 0
    with progress("replayed or skipped", job.matched) as report:
        while True:
            passed = job.replayed + job.skipped["endpoint_disabled"] + job.skipped["endpoint_deleted"]
            report(passed - reported)
            if job.state != "running":
                return job
            reported = passed
            await asyncio.sleep(_LOOK_SECONDS)
            job = await admin.replays.get(tenant_id=EVERY_TENANT, replay_id=replay)


def _states(states: Sequence[State] | None, *, all_states: bool) -> tuple[State, ...]:
    if all_states and states:
        raise Malformed("--all-states selects every final state: leave out --state", field="all_states")
    if all_states:
        return FINAL
    return tuple(states) if states else NOT_DELIVERED


def _list(
    tenant: str, state: JobState | None, *, limit: int, cursor: str | None, wide: bool, as_json: bool, none: str
) -> None:
    page = listed(
        start(READS),
        lambda admin: admin.replays.list(tenant_id=tenant, state=state, limit=limit, cursor=cursor),
        tenant=tenant,
    )
    emit_page(page, _COLUMNS, none=none, as_json=as_json, wide=wide, tenant=tenant, row=_row)


def _row(job: ReplayJob) -> dict[str, object]:
    return fields_of(job) | {"skipped": sum(job.skipped.values())}


def _facts_text(job: ReplayJob | ReplayCount) -> str:
    """Return the facts without objects inside: the conditions that are set, and one line for each count."""
    flat: dict[str, object] = {}
    for name, fact in fields_of(job).items():
        if name == "filter" and isinstance(fact, Mapping):
            flat |= {part: value for part, value in fact.items() if value is not None}
        elif isinstance(fact, Mapping):
            flat |= {f"{name} {part}": value for part, value in fact.items()}
        else:
            flat[name] = fact
    return "\n".join(key_values(flat))
