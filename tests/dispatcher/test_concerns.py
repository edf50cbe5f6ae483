"""When a person must act, why, and which command comes next; and whether first attempts come in time."""

import re
from pathlib import Path

import pytest
import yaml

from hookseal.dispatcher.core.concerns import (
    LATE_SECONDS,
    OBJECTIVE_SECONDS,
    OBJECTIVE_SHARE,
    Concern,
    InstallationFacts,
    Kind,
    Limit,
    concerns,
    meets_objective,
    worth_a_look,
)
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("OPS-15", part="status")

FINE = InstallationFacts(
    endpoints=3,
    pending=12,
    oldest_due_seconds=60.0,
    oldest_waiting_seconds={"breaker": 3_600.0, "rate": 3_600.0, "endpoint_disabled": 1e6, "order": 1e6},
    limits=[(), (Limit.REQUESTS,)],
    cannot_record=0,
    draining=1,
    overstaying=0,
    leaderless_seconds=30.0,
    secrets_refused=0,
    stopped_endpoints=0,
    idle_replay_seconds=300.0,
    active_keys=1,
    dead_letters=0,
    failed=0,
    most=10_000,
)
ROOT = Path(__file__).parents[2]
HELD, WAITING = "hookseal endpoint list --state held", "hookseal endpoint stats --sort waiting"
# Facts, the kind of what a person must act on, the reason, and the command.
CASES = [
    (
        replace(FINE, active_keys=0),
        Kind.NO_ACTIVE_KEY,
        "no master key is active, so nothing can be signed",
        "hookseal key status",
    ),
    (replace(FINE, limits=[], draining=0), Kind.NO_WORKER, "no worker is live, so nothing is sent", "hookseal worker"),
    (
        replace(FINE, limits=[], draining=0, endpoints=0),
        Kind.NO_WORKER,
        "no worker is live, so nothing is sent",
        "hookseal worker",
    ),
    (
        replace(FINE, leaderless_seconds=31.0),
        Kind.NO_LEADER,
        "no worker has led for 31 s: retries and held deliveries stay",
        "hookseal check",
    ),
    (
        replace(FINE, cannot_record=1, oldest_due_seconds=900.0),
        Kind.CANNOT_RECORD,
        "1 worker cannot record what it has sent",
        "hookseal check",
    ),
    (
        replace(FINE, draining=2, overstaying=1),
        Kind.OVERSTAYS,
        "1 worker has drained for longer than the limit",
        "hookseal doctor",
    ),
    (
        replace(FINE, oldest_due_seconds=180.0),
        Kind.LATE,
        "a delivery has been due for 3 min, although a worker could do more",
        "hookseal check",
    ),
    (
        replace(FINE, oldest_due_seconds=9_000.0, limits=[(Limit.BYTES,), (Limit.REQUESTS, Limit.BYTES)]),
        Kind.LATE,
        "a delivery has been due for 2 h, and every worker is at a limit (requests, bytes): run more",
        "hookseal worker",
    ),
    (
        replace(FINE, oldest_due_seconds=61.0, limits=[(Limit.CPU,), (Limit.POSTGRESQL,)]),
        Kind.LATE,
        "a delivery has been due for 61 s, and every worker waits (postgresql is too slow)",
        "hookseal doctor",
    ),
    (replace(FINE, secrets_refused=2), Kind.SECRET_REFUSED, "the secret of 2 endpoints is refused", HELD),
    (
        replace(FINE, stopped_endpoints=1),
        Kind.LINE_STOPPED,
        "1 ordered endpoint is stopped by a delivery that was given up",
        "hookseal endpoint list --state stopped",
    ),
    (
        replace(FINE, oldest_waiting_seconds={"breaker": 200_000.0}),
        Kind.HELD_FOR_LONG,
        "a delivery has waited for an open breaker for 2 days",
        HELD,
    ),
    (
        replace(FINE, oldest_waiting_seconds={"concurrency": 3_601.0}),
        Kind.HELD_FOR_LONG,
        "a delivery has waited for room of its endpoint for 60 min",
        WAITING,
    ),
    (
        replace(FINE, oldest_waiting_seconds={"rate": 3_601.0}),
        Kind.HELD_FOR_LONG,
        "a delivery has waited for the rate of its endpoint for 60 min",
        WAITING,
    ),
    (
        replace(FINE, idle_replay_seconds=301.0),
        Kind.REPLAY_STUCK,
        "a replay job has done nothing for 5 min",
        "hookseal replay list --state running",
    ),
]


# How many dead letters and failed deliveries there are, and what is said of them.
GIVEN_UP = [
    (1, 0, "given up: 1 dead letter"),
    (0, 2, "given up: 2 failed deliveries"),
    (9_999, 1, "given up: 9999 dead letters and 1 failed delivery"),
    (3, 10_000, "given up: at least 3 dead letters and 10000 failed deliveries"),
]
LOST = "hookseal delivery list --state dead_letter --state failed"


def test_nobody_must_act_while_it_goes_by_itself() -> None:
    """At each limit, and if nothing is installed yet: then there is no worker and no key."""
    assert () == concerns(FINE)
    assert () == concerns(replace(FINE, endpoints=0, pending=0, limits=[], draining=0, active_keys=0))
    assert () == concerns(replace(FINE, active_keys=None)), "another provider keeps the secrets"
    assert () == concerns(replace(FINE, leaderless_seconds=None, idle_replay_seconds=None, oldest_waiting_seconds={}))


@pytest.mark.parametrize(("facts", "kind", "reason", "command"), CASES)
def test_a_person_must_act(facts: InstallationFacts, kind: Kind, reason: str, command: str) -> None:
    assert (Concern(kind=kind, reason=reason, command=command),) == concerns(facts)


@pytest.mark.parametrize(("dead_letters", "failed", "reason"), GIVEN_UP)
def test_what_was_given_up_is_worth_a_look_and_no_more(dead_letters: int, failed: int, reason: str) -> None:
    """It is kept for the time of the retention: until then each status would ask for a person again."""
    facts = replace(FINE, dead_letters=dead_letters, failed=failed)
    assert (Concern(kind=Kind.GIVEN_UP, reason=reason, command=LOST),) == worth_a_look(facts)
    assert () == concerns(facts)
    assert () == worth_a_look(FINE)


def test_a_worker_that_drains_in_time_concerns_nobody() -> None:
    """It is stopping, and another one is about to start: neither that it is the only one, nor its limits."""
    assert () == concerns(replace(FINE, limits=[], draining=1))
    late = replace(FINE, limits=[], draining=1, oldest_due_seconds=900.0)
    assert () == concerns(late)


def test_each_kind_is_documented_with_its_commands() -> None:
    """The page has a row for each kind, which names every command that the code gives for it."""
    text = (ROOT / "docs" / "guide" / "running.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## When a person must act\n")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \|(.*)\|$", section.partition("\n## ")[0], re.MULTILINE))
    assert [*Kind] == [*rows]
    given = {(kind, command) for _, kind, _, command in CASES} | {(Kind.GIVEN_UP, LOST)}
    missing = {(kind, command) for kind, command in given if f"`{command}`" not in rows[kind]}
    assert (set(), set(Kind)) == (missing, {kind for kind, _ in given})


def test_the_objectives_are_those_of_the_alerts() -> None:
    """What `status` calls late is what an alert reports."""
    text = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")
    rules = {rule["alert"]: rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    slow = re.fullmatch(
        r"histogram_quantile\(([0-9.]+), .*held=\"no\".*\) > ([0-9.]+)", rules["HooksealFirstAttemptSlow"]
    )
    late = re.search(r"> ([0-9.]+)", rules["HooksealDeliveriesLate"])
    assert slow is not None
    assert late is not None
    found = (float(slow[1]), float(slow[2]), float(late[1]))
    assert (OBJECTIVE_SHARE, OBJECTIVE_SECONDS, LATE_SECONDS) == found


@pytest.mark.parametrize(
    ("p95", "oldest_due", "expected"),
    [(None, 0.0, None), (5.0, 5.0, True), (5.1, 0.0, False), (0.01, 5.1, False), (None, 5.1, False)],
)
def test_first_attempts_are_late_also_if_only_the_oldest_waits(
    p95: float | None, oldest_due: float, expected: bool | None
) -> None:
    """The newest may be fast while older ones have not been tried."""
    assert expected is meets_objective(p95, oldest_due)


def test_what_stops_most_comes_first() -> None:
    everything = replace(FINE, active_keys=0, limits=[], draining=0, secrets_refused=1, stopped_endpoints=1)
    first = [each.command for each in concerns(everything)]
    assert ["hookseal key status", "hookseal worker"] == first[:2]
    assert 4 == len(first)
