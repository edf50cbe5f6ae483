"""The page of the log events: names, levels and fields are read from the source, their meanings stand here."""

from pathlib import Path
from typing import Final

import hookseal
from tools.pages.log_events import Emitted, bound, emitted, named

SOURCE: Final = Path(hookseal.__file__).parent
NOTHING: Final = "nothing"
# Of each event: when it is logged, and what an operator does.
EVENTS: Final[dict[str, tuple[str, str]]] = {
    # --- deliveries ---
    "delivery.attempted": (
        "each attempt: `info` if it delivered, with fewer fields, and as `HOOKSEAL_LOG_SUCCESS` says; else `warning`",
        "`detail` and [outcomes.md](outcomes.md) say whose fault it is; `recorded` false: the attempt is made again",
    ),
    "delivery.ended": ("a delivery ended without an attempt", "see `reason`"),
    "delivery.waiting": ("a delivery was held, or is tried again, without an attempt", "see `reason`"),
    "delivery.given_back": ("a claimed delivery was given back unsent, and is due again", NOTHING),
    "delivery.unrecorded": (
        "an outcome was not recorded: the delivery is sent again when its lease has ended",
        "[HooksealUnrecorded](runbook.md#hooksealunrecorded)",
    ),
    "delivery.outcome_refused": (
        "PostgreSQL refuses an outcome, as a constraint or a trigger of others does: it is kept, and not sent again",
        "[HooksealDependencyDown](runbook.md#hooksealdependencydown), `records`",
    ),
    "delivery.defect": ("an error in hookseal ended an attempt", "report it with `exception`"),
    "deliveries.held_too_long": (
        "deliveries of disabled endpoints were cancelled after `HOOKSEAL_HELD_DAYS`",
        "enable endpoints earlier",
    ),
    # --- endpoints ---
    "endpoint.disabled": (
        "a worker disabled an endpoint: it answered 410, or has failed for too long",
        "[HooksealEndpointsDisabled](runbook.md#hooksealendpointsdisabled)",
    ),
    "endpoint.not_disabled": ("an endpoint answered 410, and stays enabled", "disable it by hand"),
    "endpoint.failing": (
        "no attempt of this endpoint has succeeded for a while",
        "[HooksealEndpointsFailing](runbook.md#hooksealendpointsfailing)",
    ),
    "endpoint.recovered": ("an attempt of a failing endpoint succeeded", NOTHING),
    "endpoint.breaker_opened": (
        "ten failures in a row: its deliveries wait for probes",
        "[HooksealBreakersOpen](runbook.md#hooksealbreakersopen)",
    ),
    "endpoint.released": ("a batch of held deliveries is due again", NOTHING),
    "endpoints.released": ("held deliveries of endpoints that hold nothing are due again", NOTHING),
    # --- the queue ---
    "ring.dropped": (
        "rings were dropped, because nothing is due by them or they are forged",
        "[HooksealRingsForged](runbook.md#hooksealringsforged) if `reason` says so",
    ),
    "rings.left": ("rings were left to the sweep", NOTHING),
    "rings.unknown": ("at a stop PostgreSQL did not say which rings are due: all are put back", NOTHING),
    "claim.failed": ("PostgreSQL did not answer a claim", "[HooksealClaimsFail](runbook.md#hooksealclaimsfail)"),
    "claim.defect": ("an error in hookseal ended a claim", "report it with `exception`"),
    "claim.given_back": ("a claim whose answer was lost was undone", NOTHING),
    "records.failed": (
        "outcomes cannot be recorded: nothing is claimed or sent meanwhile",
        "[HooksealUnrecorded](runbook.md#hooksealunrecorded)",
    ),
    "records.resumed": ("outcomes are recorded again", NOTHING),
    "outbox.leads": ("this worker became the leader", NOTHING),
    "outbox.follows": ("this worker is not the leader any more", NOTHING),
    "sweep.took_back": (
        "leases ended without a record, of workers that were killed or cut off",
        "[HooksealLeasesTakenBack](runbook.md#hooksealleasestakenback)",
    ),
    "sweep.recorded_refused": ("outcomes that were refused before are on record", NOTHING),
    "sweep.rang": ("the sweep rang what was due and not rung", "[HooksealRungBySweep](runbook.md#hooksealrungbysweep)"),
    "sweep.producer_rings_missing": ("producers did not ring what they have published", "check their Redis"),
    # --- secrets and keys ---
    "secret.denied_unaudited": (
        "an audit row about refused secrets could not be written, and is lost",
        "keep this line: [runbook-keys.md](runbook-keys.md)",
    ),
    "stale.found": (
        "a row of an endpoint is older than the audit log, or not in it",
        "[HooksealStaleRow](runbook.md#hooksealstalerow)",
    ),
    "secret.purged": ("retired versions of secrets were destroyed", NOTHING),
    "secret.removed_at_provider": ("versions were removed at their provider", NOTHING),
    "secret.removal_failed": ("versions could not be removed at their provider; it is tried again", "see `reason`"),
    "secret.rotation_announced": ("a rotation on schedule comes", "give the receiver the next secret"),
    "secret.rotated_by_schedule": (
        "a secret was rotated on schedule",
        "[the receiver must switch](runbook.md#a-secret-was-rotated-by-schedule)",
    ),
    "secrets.in_memory": ("`SECRETS_PROVIDER` is `dev`", "use it for tests only"),
    "secrets.unmigrated": ("endpoints have a plaintext secret only", "run `hookseal migrate-secrets`"),
    "secrets.unreachable": ("secrets are kept by a provider without settings", "add its settings"),
    "kms.away": ("the KMS did not unwrap the master key; it is asked again", "[guide/kms.md](guide/kms.md)"),
    "openbao.token_ends": ("the token of OpenBao could not be renewed", "[guide/openbao.md](guide/openbao.md)"),
    # --- loops ---
    "LOOP.failed": ("a loop met an outage; once for each reason", "[HooksealLoopFails](runbook.md#hooksealloopfails)"),
    "LOOP.defect": ("an error in hookseal ended a pass of a loop", "report it with `exception`"),
    "LOOP.resumed": ("a pass of this loop succeeded again", NOTHING),
    "TASK_failed": (
        "a task of the leader failed for one endpoint or tenant; once for each reason",
        "see `reason`",
    ),
    "TASK_defect": ("an error in hookseal ended such a task", "report it with `exception`"),
    "engine.restarted": ("taking or handling rings ended by an error, and was started again", "see `reason`"),
    "worker.loop_ended": ("a loop ended by itself: the worker ends", "report it with `exception`"),
    "retention.removed": ("rows that ended before the retention were deleted", NOTHING),
    "replay.moved": ("how far a replay is, once a minute", NOTHING),
    "replay.ended": ("a replay is done", NOTHING),
    "replay.failed": (
        "a step of a replay failed; it is tried again",
        "[HooksealReplayStuck](runbook.md#hooksealreplaystuck)",
    ),
    "replay.defect": ("an error in hookseal ended a step of a replay", "report it with `exception`"),
    # --- processes ---
    "worker.ready": ("a worker, or a parent with all its processes, is ready", NOTHING),
    "worker.draining": ("a worker, or a parent, stops: requests in flight end", NOTHING),
    "worker.stopped": ("a worker, or a parent, has stopped", "`cut_off` above 0: raise `HOOKSEAL_DRAIN_SECONDS`"),
    "worker.exhausted": (
        "this machine has no file descriptor or memory left: the worker begins less",
        "[HooksealExhausted](runbook.md#hooksealexhausted)",
    ),
    "setting.unknown": (
        "a name that is no setting of this version is set, and `HOOKSEAL_UNKNOWN_SETTINGS` is `warn`",
        "correct the name, unless it is one of a newer version",
    ),
    "worker.few_descriptors": ("this process may open fewer files than its concurrency needs", "raise the hard limit"),
    "api.ready": ("the HTTP API, or its parent with all its processes, is ready", NOTHING),
    "api.draining": ("the HTTP API, or its parent, stops", NOTHING),
    "api.stopped": ("the HTTP API, or its parent, has stopped", NOTHING),
    "api.failed": ("an error in hookseal was answered with 500", "report it with `exception`"),
    "api.refused": ("a request failed for a reason that only an operator can remove", "see `reason`"),
    "pages.failed": ("an error in hookseal was answered with 500 by a page", "report it with `exception`"),
    "pages.refused": ("a page failed for a reason that only an operator can remove", "see `reason`"),
    "check.failed": (
        "a check of `/readyz` or `/startupz` failed; once for each reason",
        "[HooksealDependencyDown](runbook.md#hooksealdependencydown)",
    ),
    "check.passed": ("the check passes again", NOTHING),
    "probe.defect": ("an error in hookseal ended the answer of a probe", "report it with `exception`"),
    "process.started": ("a parent started a process", NOTHING),
    "process.ready": ("a process of a parent is ready", NOTHING),
    "process.restarting": (
        "a process ended, and is started again",
        "[HooksealProcessRestarted](runbook.md#hooksealprocessrestarted)",
    ),
    "process.killed": ("a process did not end in time at a stop", "raise `HOOKSEAL_DRAIN_SECONDS`"),
    "process.no_answer": ("a process could not answer its parent", "see `reason`"),
    "process.orphaned": ("the parent is gone: this process drains and ends", NOTHING),
    "traces.failed": (
        "the collector takes no spans: they are lost; once for each outage",
        "[guide/tracing.md](guide/tracing.md)",
    ),
    "traces.resumed": ("the collector takes spans again", NOTHING),
    "log.dropped": ("the reader of the log took no lines for a while", "make the reader of standard error faster"),
}
# What each field is.
FIELDS: Final[dict[str, str]] = {
    "again_in_seconds": "when it is tried again",
    "attempt": "the number of the attempt, from 1; replays continue it",
    "attempts": "rows of attempts",
    "audited": "whether the audit log has it, too",
    "both_sign_until": "until when both secrets sign, as in RFC 3339",
    "bytes": "the size of the body",
    "call": "the call of the HTTP API, as in its document",
    "check": "the check",
    "code": "the code in the answer",
    "correlation_id": "what the producer gave with the event; null without",
    "cut_off": "requests that had to be cut off",
    "days": "the setting, in days",
    "dead_letters": "how many of them became dead letters",
    "deliveries": "deliveries",
    "delivery_id": "the delivery, which receivers see as `webhook-id`",
    "denied": "how many refusals there were, by code",
    "detail": "what happened, as a sentence",
    "duration_ms": "how long the request took, in milliseconds",
    "ending": "how the process ended",
    "endpoint_id": "the endpoint",
    "endpoints": "endpoints: their number, or a list of ids",
    "ends_in_seconds": "how long the token is valid",
    "event_id": "the event",
    "event_type": "its type",
    "events": "rows of events",
    "exception": "the class of an error and the calls to its place, without any value",
    "exit_code": "the exit code; negative: the signal that ended it",
    "generation": "the generation of the pointer of the endpoint",
    "half": "the half of the sweep",
    "health_url": "where the probes answer",
    "host": "the host of the url; never its path, which may hold a token",
    "in_flight": "requests in flight",
    "in_seconds": "when it is started again",
    "kms": "the key of the KMS, by its name",
    "outcomes": "how many outcomes were recorded",
    "leases": "leases",
    "limit": "how many files the process may open",
    "lines": "lines that are lost",
    "loop": "the loop",
    "lost": "spans that are lost",
    "matched": "deliveries that the replay is about",
    "needed": "how many files it needs",
    "of": "what was measured or asked",
    "outcome": "the outcome, as in [outcomes.md](outcomes.md)",
    "page": "the page",
    "pid": "the process",
    "process": "the number of the process under its parent",
    "processes": "how many processes there are",
    "providers": "providers of secrets",
    "setting": "the name of a variable, never its value",
    "reason": "why, as a sentence, or the class of an error",
    "recorded": "false if the lease was lost: nothing was written",
    "remaining": "how many deliveries are left",
    "replay_id": "the replay",
    "replayed": "deliveries that were made due",
    "rests_seconds": "how long it begins nothing",
    "retry_in_seconds": "when the delivery is due again; null if it is not",
    "rings": "rings",
    "rotates_at": "when it is rotated, as in RFC 3339",
    "seconds": "how long it lasted",
    "secret_ref": "the reference of the secret, which is not secret",
    "signed_by": "the references of the secrets that signed",
    "since": "the first of them, as in RFC 3339",
    "skipped": "deliveries that were left out, by reason",
    "state": "the [state](lifecycle.md) of the delivery",
    "status": "the status of the answer; null without one",
    "tenant_id": "the tenant",
    "trace_id": "the trace of the `traceparent` that the producer gave; absent without",
    "unrecorded": "outcomes that wait to be recorded",
    "until": "the last of them, as in RFC 3339",
    "url": "where the HTTP API answers",
    "versions": "versions of secrets",
    "waiting_for": "what the delivery waits for; null if nothing holds it",
    "worker_id": "the worker",
}


def logs_page() -> str:
    """Return the page `docs/logs.md` in Markdown. Raises `ValueError` for an event or a field that has no meaning."""
    events, of_loggers = emitted(SOURCE), bound(SOURCE)
    fields = of_loggers.union(*(each.fields for each in events.values()))
    if problems := [*_differences("log events", {*events}, {*EVENTS}), *_differences("fields", fields, {*FIELDS})]:
        raise ValueError("\n".join(problems))
    lines = [
        "# Logs",
        "",
        "Written by `make docs` from the source and `tools/pages/logs.py`. Do not edit it.",
        "",
        "hookseal logs to standard error, one JSON object a line; on a terminal outside production, lines that people",
        "read. `HOOKSEAL_LOG_LEVEL` and `HOOKSEAL_LOG_FORMAT` are among the [settings](settings.md). No line has a",
        "secret, a header value, a body, or the path of an endpoint's url. Lines of libraries have a text in place of",
        "the name of an event, and `logger`.",
        "",
        "Every line has `at`, the time in UTC to the millisecond, `level` (`debug`, `info`, `warning` or `error`) and",
        "`event`. Those of a worker have its `worker_id`, except for attempts that delivered: the attempt on record",
        "has it. Under a parent each line has `process`.",
        "",
        "## Events",
        "",
        f"`LOOP` is one of {_listed('Periodic', 'Outage')}.",
        f"`TASK` is one of {_listed('FailureLog')}.",
        "",
        "| event | level | fields | when | what to do |",
        "|---|---|---|---|---|",
        *[_row(name, events[name]) for name in EVENTS],
        "",
        "## Fields",
        "",
        "| field | meaning |",
        "|---|---|",
        *[f"| `{name}` | {FIELDS[name]} |" for name in sorted(FIELDS)],
        "",
    ]
    return "\n".join(lines)


def _listed(*classes: str) -> str:
    return ", ".join(f"`{name}`" for name in sorted(named(SOURCE, frozenset(classes))))


def _row(name: str, event: Emitted) -> str:
    when, do = EVENTS[name]
    fields = ", ".join(f"`{each}`" for each in sorted(event.fields))
    return f"| `{name}` | {', '.join(sorted(event.levels))} | {fields} | {when} | {do} |"


def _differences(what: str, logged: set[str], described: set[str]) -> list[str]:
    return [
        f"tools/pages/logs.py: {what} that {said}: {sorted(names)}"
        for said, names in (("it lacks", logged - described), ("nothing logs", described - logged))
        if names
    ]
