"""Explains where a delivery stands: what is read of it, what it waits for, since when, what releases it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from hookseal.dispatcher.core.endpoint_rules import HELD_DAYS
from hookseal.dispatcher.core.model import State, WaitingFor
from hookseal.dispatcher.core.url import PLAIN_HTTP
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.literals import DeliveryState, NextStep, WaitingReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAttempt:
    """The newest attempt on record. `ended_at` is when it began, if its duration is unknown."""

    number: int
    outcome: str
    status: int | None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """The endpoint of the delivery. `attempts_allowed` is the budget of each of its deliveries.

    `rate` is its limit in requests a second, None if it has none.
    """

    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    attempts_allowed: int
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read about a delivery at the moment `now`, by the clock of the database.

    `endpoint` is None if its row does not exist. `held_for` is what its endpoint is held for (its breaker or a secret)
    and `probe_at` when it is probed next: None if it is not held. In the line of an ordered endpoint, `ahead` is the
    first delivery, if that is not this one, `ahead_state` its state, and `number_ahead` counts those that come before
    this one, up to 10,000. `stops_line` says whether this one was given up and the others wait for an operator.
    `live_workers` counts recent heartbeats, and `has_leader` says whether one of these workers leads the outbox.
    """

    now: datetime
    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    state: State
    waiting_for: WaitingFor | None
    held_at: datetime | None
    next_attempt_at: datetime | None
    rung_at: datetime | None
    finished_at: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    claimed_at: datetime | None
    claimed_number: int | None
    budget_spent: int
    last_error: str | None
    last_attempt: LastAttempt | None
    endpoint: EndpointFacts | None
    held_for: WaitingFor | None
    probe_at: datetime | None
    ahead: DeliveryId | None
    ahead_state: State | None
    number_ahead: int
    stops_line: bool
    live_workers: int
    has_leader: bool

    @property
    def of_endpoint(self) -> str:
        """The options that name the endpoint in a command."""
        return f"--tenant {self.tenant_id} --endpoint {self.endpoint_id}"

    @property
    def cancelled_at(self) -> datetime | None:
        """When it is cancelled by the default of HOOKSEAL_HELD_DAYS; None unless it waits for a disabled endpoint."""
        if self.held_at is None or self.waiting_for is not WaitingFor.ENDPOINT_DISABLED:
            return None
        return self.held_at + timedelta(days=HELD_DAYS)


_START: Final = "hookseal worker"
_CHECK: Final = "hookseal check"
_NO_MARKS: Final = str.maketrans("`“”", '\'""')
_FREE_WORKER: Final = "a worker with a free place for a request"
_FIRST: Final = "the leader, which makes it due within a second"
_GIVEN_UP: Final = {State.DEAD_LETTER: "a dead letter", State.FAILED: "failed for good"}
_HELD: Final = "So this delivery is held, which spends no attempt"
# What a person does with each command; a line that waits for the delivery before it can only wait.
_STEPS: Final[Mapping[str, NextStep]] = {
    "worker": "start_worker",
    "check": "check_workers",
    "endpoint enable": "enable_endpoint",
    "endpoint update": "update_endpoint",
    "secret cache-clear": "clear_caches",
    "delivery replay": "replay",
    "delivery why": "wait",
}
_LEADER: Final = "the leader, which releases 1,000 deliveries at a time, the oldest first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to `delivery why`.

    `since` is when the delivery came to where it stands, None if it was given back and that is not on record.
    `attempts` is the number of its newest attempt, `last_error` says why that failed or why it is held, and
    `next_attempt_at` is when it is or was due, None if it is not pending or waits for something else than its time.
    `released_by` says what ends the wait, None in a final state. `command` does so now, or sends a finished delivery
    again; None if no command does. `text` says all of this, a line for each: the reason first, and last the command,
    indented and alone on its line, so that it can be copied.

    `action` says the same for a program: `replay` it (or, if `ahead_id` is given up and stops its line, that one),
    `enable_endpoint`, `update_endpoint` (its url or its limits), `clear_caches` once its secret is repaired,
    `start_worker`, `check_workers`, `wait`, or `nothing`, since its endpoint is deleted. `ahead_id` is the first
    delivery of its line, None if it waits for none. While its endpoint is held, one delivery is tried at `probe_at`.
    One that waits for a disabled endpoint is cancelled at `cancelled_at`, by the default of HOOKSEAL_HELD_DAYS. One
    that is being sent is sent again after `lease_expires_at`, if its worker has died.
    """

    state: DeliveryState
    waiting_for: WaitingReason | None
    since: datetime | None
    attempts: int
    last_error: str | None
    next_attempt_at: datetime | None
    released_by: str | None
    command: str | None
    action: NextStep
    ahead_id: DeliveryId | None
    probe_at: datetime | None
    cancelled_at: datetime | None
    lease_expires_at: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class _Standing:
    """`what` is one sentence or more, `released_by` what ends the wait, and `advice` what the command does."""

    what: str
    since: datetime | None = None
    released_by: str | None = None
    command: str | None = None
    advice: str = "Nothing needs to be done."


def explain(facts: Facts) -> Explanation:
    """Return the explanation of where the delivery stands."""
    standing = _standing(facts)
    lines = [
        f"{standing.what[0].upper()}{standing.what[1:]}.",
        f"This has been so since {_at(standing.since)}." if standing.since is not None else "",
        f"It is released by {standing.released_by}." if standing.released_by is not None else "",
        standing.advice if standing.command is None else f"{standing.advice}:",
    ]
    # A reason may be a text of an operator: its line breaks are none of ours.
    shown = [" ".join(line.splitlines()) for line in lines if line]
    return Explanation(
        state=facts.state.value,
        waiting_for=None if facts.waiting_for is None else facts.waiting_for.value,
        since=standing.since,
        attempts=0 if facts.last_attempt is None else facts.last_attempt.number,
        last_error=facts.last_error,
        next_attempt_at=facts.next_attempt_at if facts.waiting_for is None else None,
        released_by=standing.released_by,
        command=standing.command,
        action=_action(facts, standing),
        ahead_id=facts.ahead if facts.waiting_for is WaitingFor.ORDER else None,
        probe_at=facts.probe_at if facts.state is State.PENDING else None,
        cancelled_at=facts.cancelled_at,
        lease_expires_at=facts.lease_expires_at if facts.state is State.SENDING else None,
        text="\n".join(shown if standing.command is None else [*shown, f"  {standing.command}"]),
    )


def _action(facts: Facts, standing: _Standing) -> NextStep:
    """Return what the command of the standing does; without one there is nothing to do but wait, if that helps."""
    if standing.command is None:
        return "wait" if facts.state in {State.PENDING, State.SENDING} else "nothing"
    given = standing.command.removeprefix("hookseal ")
    return next(step for command, step in _STEPS.items() if given.startswith(command))


def _standing(facts: Facts) -> _Standing:
    match facts.state:
        case State.PENDING:
            return _due(facts) if facts.waiting_for is None else _held(facts, facts.waiting_for)
        case State.SENDING:
            return _sending(facts)
        case State.DELIVERED:
            answer = "" if facts.last_attempt is None else f" at attempt {facts.last_attempt.number}"
            return _final(facts, f"it is delivered: the receiver accepted it{answer}")
        case State.DEAD_LETTER:
            spent = f"all its attempts are spent ({facts.budget_spent})"
            return _final(facts, f"it is a dead letter: {spent}, and the last one failed{_error(facts)}")
        case State.FAILED:
            return _final(facts, f"it failed for good, whatever attempts were left{_error(facts)}")
        case State.CANCELLED:
            return _final(facts, f"it is cancelled and will not be sent{_error(facts)}")
        case _:
            assert_never(facts.state)


def _held(facts: Facts, waiting_for: WaitingFor) -> _Standing:
    match waiting_for:
        case WaitingFor.SECRET:
            return _for_secret(facts)
        case WaitingFor.ENDPOINT_DISABLED:
            return _for_endpoint(facts)
        case WaitingFor.BREAKER:
            return _Standing(
                f"the breaker of its endpoint is open: too many attempts in a row failed{_error(facts)}. {_HELD}",
                facts.held_at,
                "a probe that is answered: from time to time one delivery of the endpoint is tried, at least every "
                "5 minutes, and then the others follow at a growing rate",
                *_enable(facts, "If the receiver works again, have one delivery tried now"),
            )
        case WaitingFor.RATE | WaitingFor.CONCURRENCY:
            return _for_room(facts, waiting_for)
        case WaitingFor.ORDER:
            return _for_order(facts)
        case _:
            assert_never(waiting_for)


def _for_room(facts: Facts, waiting_for: WaitingFor) -> _Standing:
    rate = None if facts.endpoint is None else facts.endpoint.rate
    by_rate = "the clock: the deliveries of the endpoint follow one after another, as its rate allows"
    if waiting_for is WaitingFor.RATE:
        what, by, option = "its endpoint gets as many requests as its rate limit allows", by_rate, "--rate N/s"
        advice = "To send it sooner, raise the rate"
    elif rate is not None:
        what = f"its endpoint gets as many requests as its rate limit ({rate:g}/s) and its concurrency allow"
        by, option = f"the end of requests in flight, and {by_rate}", "--rate N/s"
        advice = "To send it sooner, raise the rate, or `--concurrency` if that is what is reached"
    else:
        what = "its endpoint has as many requests in flight as its concurrency allows now"
        by = "the end of one of these requests; the concurrency grows while they succeed, and halves when they fail"
        advice, option = "To send it sooner, raise the limit, if that is what is reached", "--concurrency N"
    command = f"hookseal endpoint update {facts.of_endpoint} {option}"
    return _Standing(f"{what}. {_HELD}", facts.held_at, by, command, advice)


def _for_secret(facts: Facts) -> _Standing:
    is_plain = facts.last_error == PLAIN_HTTP
    reason = PLAIN_HTTP if is_plain else f"a secret of its endpoint is refused{_error(facts)}"
    what = f"{reason}. {_HELD}"
    if facts.probe_at is None:
        return _Standing(what, facts.held_at, _LEADER, *_workers(facts))
    if is_plain:
        return _Standing(
            what,
            facts.held_at,
            f"a probe: the oldest delivery of the endpoint is tried next at {_at(facts.probe_at)}, and if its url "
            "may be used then, all others follow",
            f"hookseal endpoint update {facts.of_endpoint} --url https://...",
            "To send it at once, give the endpoint an https url",
        )
    return _Standing(
        what,
        facts.held_at,
        f"a probe that is signed: the oldest delivery of the endpoint is tried next at {_at(facts.probe_at)}, and if "
        "its secret is available, all others follow",
        "hookseal secret cache-clear",
        "When the secret is repaired (docs/runbook.md, HooksealSecretRefused), have it tried at once",
    )


def _for_endpoint(facts: Facts) -> _Standing:
    if disabled := _disabled(facts):
        return _Standing(f"{disabled}. {_HELD}", facts.held_at, _enabling(facts), *_enable(facts))
    again = "deleted" if facts.endpoint is None else "enabled again"
    return _Standing(f"it was held for its endpoint, which is {again} now", facts.held_at, _LEADER, *_workers(facts))


def _disabled(facts: Facts) -> str:
    if facts.endpoint is None or facts.endpoint.enabled:
        return ""
    at = "" if facts.endpoint.disabled_at is None else f" at {_at(facts.endpoint.disabled_at)}"
    reason = "" if facts.endpoint.disabled_reason is None else f" ({_foreign(facts.endpoint.disabled_reason)})"
    return f"its endpoint was disabled{at}{reason}"


def _enabling(facts: Facts) -> str:
    at = "" if facts.cancelled_at is None else f" at {_at(facts.cancelled_at)}"
    default = f"with the default of {HELD_DAYS} days{at}"
    return f"`endpoint enable`; if that does not happen within HOOKSEAL_HELD_DAYS, it is cancelled ({default})"


def _enable(facts: Facts, advice: str = "Enable the endpoint") -> tuple[str, str]:
    return f"hookseal endpoint enable {facts.of_endpoint}", advice


def _for_order(facts: Facts) -> _Standing:
    if facts.ahead is None:
        return _Standing("it waited for its order, and is the first of its endpoint now", facts.held_at, _FIRST)
    others = "" if facts.number_ahead == 1 else f"; {facts.number_ahead} come before it"
    first = f"its endpoint is ordered, and delivery {facts.ahead}"
    if facts.ahead_state in _GIVEN_UP:
        return _Standing(
            f"{first}, which is {_GIVEN_UP[facts.ahead_state]}, stops it{others}. {_HELD}",
            facts.held_at,
            "a replay of that delivery, or by giving up its place "
            f"(`hookseal delivery skip {facts.ahead}`, or `endpoint update --on-dead-letter skip` for this one and all "
            "later ones)",
            f"hookseal delivery replay {facts.ahead}",
            "When the receiver accepts it, send that one again, and the others follow",
        )
    return _Standing(
        f"{first} is not finished{others}. {_HELD}",
        facts.held_at,
        "the end of those before it: nothing overtakes them, however often they are tried again",
        f"hookseal delivery why {facts.ahead}",
        "To see what the first one waits for",
    )


def _due(facts: Facts) -> _Standing:
    due_at = facts.next_attempt_at or facts.now
    if due_at > facts.now:
        return _not_due(facts, due_at)
    if disabled := _disabled(facts):
        return _Standing(f"it is due, and is not sent, because {disabled}", due_at, _enabling(facts), *_enable(facts))
    if facts.rung_at is None or facts.rung_at < due_at:
        what = "it is due, and no worker has claimed it"
        rings = "the outbox does within a second"
        if not facts.has_leader:
            rings = "a sweep does within HOOKSEAL_SWEEP_SECONDS, since no worker leads the outbox now"
        by = f"{_FREE_WORKER}; if its producer has not rung it, {rings}"
    else:
        what = f"it is due, is marked as rung at {_at(facts.rung_at)}, and no worker has claimed it"
        by = f"{_FREE_WORKER}; if the ring was lost, the sweep rings it again within HOOKSEAL_SWEEP_SECONDS"
    if not facts.live_workers:
        return _Standing(f"{what}, because no worker runs", due_at, "a worker", _START, "Start one")
    return _Standing(what, due_at, by, _CHECK, "If it is due for more than a minute, ask a worker what is wrong")


def _not_due(facts: Facts, due_at: datetime) -> _Standing:
    last, since = facts.last_attempt, None
    if last is None or facts.budget_spent == 0:
        what = f"a worker gave it back without an attempt{_error(facts)}"
    else:
        answer = last.outcome if last.status is None else f"{last.outcome}, status {last.status}"
        what = f"attempt {last.number} failed ({answer}); attempts spent: {_spent(facts)}"
        since = last.ended_at
    by = f"its due time, {_at(due_at)}"
    if disabled := _disabled(facts):
        return _Standing(what, since, f"{by}, and then by `endpoint enable`, because {disabled}", *_enable(facts))
    if facts.held_for is WaitingFor.BREAKER:
        enable = _enable(facts, "If the receiver works again, have one delivery of the endpoint tried now")
        return _Standing(what, since, f"{by}, and then by the breaker of its endpoint, which is open", *enable)
    return _Standing(what, since, by, *_again(facts, "To have it tried at once"))


def _spent(facts: Facts) -> str:
    if facts.endpoint is None:
        return f"{facts.budget_spent}"
    allowed = facts.endpoint.attempts_allowed
    if facts.budget_spent < allowed:
        return f"{facts.budget_spent} of {allowed}"
    return f"{facts.budget_spent}, and its endpoint now allows {allowed}: the next one is the last"


def _sending(facts: Facts) -> _Standing:
    expires_at, owner = facts.lease_expires_at or facts.now, facts.lease_owner or "?"
    if expires_at > facts.now:
        return _Standing(
            f"worker {owner} is sending attempt {facts.claimed_number} now",
            facts.claimed_at,
            "the answer of the receiver, or the time-out of the endpoint; if that worker has died, by the sweep of "
            f"another one, soon after its lease ends at {_at(expires_at)}",
            *_workers(facts),
        )
    return _Standing(
        f"worker {owner} claimed it for attempt {facts.claimed_number} and has not recorded the answer: it ended, "
        f"lost PostgreSQL, or cannot record now (docs/runbook.md, HooksealUnrecorded); its lease "
        f"expired at {_at(expires_at)}",
        facts.claimed_at,
        "the record of that worker, if it runs; else by the sweep of another one, within HOOKSEAL_SWEEP_SECONDS, which "
        "records the attempt as unknown",
        *_workers(facts),
    )


def _final(facts: Facts, what: str) -> _Standing:
    advice = "To send it again"
    if facts.stops_line:
        what = f"{what}; its endpoint is ordered, so that nothing behind it is sent"
        advice = f"To give up its place run `hookseal delivery skip {facts.delivery_id}`. To send it again in its place"
    return _Standing(what, facts.finished_at, None, *_again(facts, advice))


def _again(facts: Facts, advice: str) -> tuple[str | None, str]:
    """Return the command that has the delivery tried now, and what it does; no command if its endpoint is deleted."""
    if facts.endpoint is None:
        return None, "Its endpoint is deleted, so that it cannot be sent."
    replay = f"hookseal delivery replay {facts.delivery_id}"
    if facts.endpoint.enabled:
        return replay, advice
    disabled = f"Its endpoint is disabled. To send it again, run `{replay}` after you have enabled the endpoint"
    return _enable(facts, disabled)


def _workers(facts: Facts) -> tuple[str | None, str]:
    """Return the command that gives work to be done a worker, and what it does; no command if one runs."""
    return (None, "Nothing needs to be done.") if facts.live_workers else (_START, "No worker runs: start one")


def _error(facts: Facts) -> str:
    return "" if facts.last_error is None else f" ({_foreign(facts.last_error)})"


def _foreign(text: str) -> str:
    """Return the text as a quotation, without backticks: between these stands a command for a person to run."""
    return f"“{text.translate(_NO_MARKS)}”"


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
