"""When a person must act, why, and which command comes next; and what limits a worker."""

import pytest

from hookseal.dispatcher.core.concerns import Concern, InstallationFacts, Limit, Use, concerns, limited_by
from hookseal.ground.wire import MAX_BODY_BYTES
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("OPS-15", part="status")

FINE = InstallationFacts(
    endpoints=3,
    pending=12,
    oldest_due_seconds=60.0,
    oldest_waiting_seconds={"breaker": 3_600.0, "rate": 3_600.0, "endpoint_disabled": 1e6, "order": 1e6},
    limits=[(), (Limit.REQUESTS,)],
    leaderless_seconds=30.0,
    secrets_refused=0,
    stopped_endpoints=0,
    idle_replay_seconds=300.0,
    active_keys=1,
)
IDLE = Use(
    requests=0, most_requests=10, bytes=0, most_bytes=10 * MAX_BODY_BYTES, connections=0, most_connections=7,
    cannot_record=False,
)  # fmt: skip


def test_nobody_must_act_while_it_goes_by_itself() -> None:
    """At each limit, and if nothing is installed yet: then there is no worker and no key."""
    assert () == concerns(FINE)
    assert () == concerns(replace(FINE, endpoints=0, pending=0, limits=[], active_keys=0))
    assert () == concerns(replace(FINE, active_keys=None)), "another provider keeps the secrets"
    assert () == concerns(replace(FINE, leaderless_seconds=None, idle_replay_seconds=None, oldest_waiting_seconds={}))


@pytest.mark.parametrize(
    ("facts", "reason", "command"),
    [
        (replace(FINE, active_keys=0), "no master key is active, so nothing can be signed", "hookseal key status"),
        (replace(FINE, limits=[]), "no worker is live, so nothing is sent", "hookseal worker"),
        (replace(FINE, limits=[], endpoints=0), "no worker is live, so nothing is sent", "hookseal worker"),
        (
            replace(FINE, leaderless_seconds=31.0),
            "no worker has led for 31 s: retries and held deliveries stay",
            "hookseal check",
        ),
        (
            replace(FINE, limits=[(Limit.RECORDS,), ()], oldest_due_seconds=900.0),
            "1 worker cannot record what it has sent",
            "hookseal check",
        ),
        (
            replace(FINE, oldest_due_seconds=180.0),
            "a delivery has been due for 3 min, although a worker could do more",
            "hookseal check",
        ),
        (
            replace(FINE, oldest_due_seconds=9_000.0, limits=[(Limit.BYTES,), (Limit.REQUESTS, Limit.BYTES)]),
            "a delivery has been due for 2 h, and every worker is at a limit (requests, bytes): run more",
            "hookseal worker",
        ),
        (
            replace(FINE, secrets_refused=2),
            "the secret of 2 endpoints is refused",
            "hookseal endpoint list --state held",
        ),
        (
            replace(FINE, stopped_endpoints=1),
            "1 ordered endpoint is stopped by a delivery that was given up",
            "hookseal endpoint list --state stopped",
        ),
        (
            replace(FINE, oldest_waiting_seconds={"breaker": 200_000.0}),
            "a delivery has waited for an open breaker for 2 days",
            "hookseal endpoint list --state held",
        ),
        (
            replace(FINE, oldest_waiting_seconds={"concurrency": 3_601.0}),
            "a delivery has waited for room of its endpoint for 60 min",
            "hookseal endpoint stats --sort waiting",
        ),
        (
            replace(FINE, idle_replay_seconds=301.0),
            "a replay job has done nothing for 5 min",
            "hookseal replay list --state running",
        ),
    ],
)
def test_a_person_must_act(facts: InstallationFacts, reason: str, command: str) -> None:
    assert (Concern(reason=reason, command=command),) == concerns(facts)


def test_what_stops_most_comes_first() -> None:
    everything = replace(FINE, active_keys=0, limits=[], secrets_refused=1, stopped_endpoints=1)
    first = [each.command for each in concerns(everything)]
    assert ["hookseal key status", "hookseal worker"] == first[:2]
    assert 4 == len(first)


def test_a_worker_is_limited_by_what_it_has_no_more_of() -> None:
    """Bytes limit it when a body of the largest size does not fit. A worker of an older version says nothing."""
    assert () == limited_by(IDLE)
    assert () == limited_by(replace(IDLE, requests=9, bytes=9 * MAX_BODY_BYTES, connections=6))
    assert (Limit.REQUESTS,) == limited_by(replace(IDLE, requests=10))
    assert (Limit.BYTES,) == limited_by(replace(IDLE, bytes=9 * MAX_BODY_BYTES + 1))
    assert (Limit.CONNECTIONS,) == limited_by(replace(IDLE, connections=7))
    older = Use(
        requests=None, most_requests=None, bytes=None, most_bytes=None, connections=None, most_connections=None,
        cannot_record=True,
    )  # fmt: skip
    assert (Limit.RECORDS,) == limited_by(older)
