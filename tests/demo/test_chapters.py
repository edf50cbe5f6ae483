"""A chapter of the demo passes only if it saw all that it expects; else it says what is missing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hookseal.demo.chapters import dead_letter, master_key, retries, rotation, stale, x_webhook
from hookseal.demo.chapters.attempts import Attempt, parse_attempts
from hookseal.demo.receiver import Arrival

ROTATED = rotation.Seen(
    deliveries=65,
    delivered=65,
    old=22,
    both=21,
    new=22,
    other=0,
    refused=0,
    complete=True,
    after=20,
    older_after=0,
)
FAILED = Attempt(number=1, status=500, outcome="server_error", waited_seconds=None)
THROTTLED = Attempt(number=2, status=503, outcome="throttled", waited_seconds=0.75)
DELIVERED = Attempt(number=3, status=204, outcome="delivered", waited_seconds=2.0)
RETRIED = retries.Seen(state="delivered", attempt_log=(FAILED, THROTTLED, DELIVERED), verified=3, refused=0)
REPLAYED = dead_letter.Seen(
    before_replay="dead_letter",
    after_replay="delivered",
    attempt_log=(FAILED, replace(FAILED, number=2, waited_seconds=1.0), DELIVERED),
    delivery_ids=1,
    refused=0,
)
STALE = stale.Seen(waited_for="secret", arrived_before=0, accepted=1, verified=1, refused=0)
CHANGED = master_key.Seen(
    deliveries=50,
    delivered=50,
    verified=50,
    refused=0,
    meanwhile=10,
    after=10,
    moved=11,
    left=0,
    old_key="retired",
)
X_SIGNED = x_webhook.Seen(deliveries=5, delivered=5, verified=5, refused=0)


@pytest.mark.req("OPS-08")
def test_a_chapter_that_saw_everything_passes() -> None:
    """If everything was seen, the chapter passes, nothing is missing, and its line fits into 80 columns."""
    chapters = [
        rotation.judge(ROTATED),
        retries.judge(RETRIED),
        dead_letter.judge(REPLAYED),
        x_webhook.judge(X_SIGNED),
        stale.judge(STALE),
        master_key.judge(CHANGED),
    ]
    names = ["rotation", "retries", "dead letter", "x-webhook", "stale row", "master key"]
    assert names == [chapter.name for chapter in chapters]
    assert all(chapter.holds and () == chapter.missing for chapter in chapters)
    assert all(len(chapter.detail) <= 67 for chapter in chapters)
    assert "22 requests with the old secret, 21 with both, 22 after revoking" == chapters[0].detail


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(ROTATED, old=19), "requests with the old secret before the rotation"),
        (replace(ROTATED, both=19), "requests that verify with the old and with the new secret"),
        (replace(ROTATED, complete=False), "the completion of the revocation"),
        (replace(ROTATED, after=19), "requests after the revocation"),
        (replace(ROTATED, older_after=1), "no request with an older secret after the revocation: 1 came"),
        (replace(ROTATED, refused=1), "a valid signature in each request: 1 refused"),
        (replace(ROTATED, other=1), "the expected secrets in each request: 1 had others"),
        (replace(ROTATED, delivered=64), "1 deliveries on record"),
    ],
)
def test_a_rotation_with_one_deviation_fails(miss: rotation.Seen, missing: str) -> None:
    """If one thing was not seen, or should not have been, the chapter fails."""
    chapter = rotation.judge(miss)
    assert not chapter.holds
    assert (missing,) == chapter.missing


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(RETRIED, state="pending"), "state delivered: the delivery is pending"),
        (replace(RETRIED, attempt_log=(FAILED, THROTTLED)), "attempts with the answers 500, 503 and 204"),
        (replace(RETRIED, attempt_log=()), "attempts with the answers 500, 503 and 204"),
        (
            replace(RETRIED, attempt_log=(FAILED, replace(THROTTLED, outcome="server_error"), DELIVERED)),
            "attempts with the answers 500, 503 and 204",
        ),
        (
            replace(RETRIED, attempt_log=(FAILED, replace(THROTTLED, waited_seconds=0.74), DELIVERED)),
            "a back-off after the first failure",
        ),
        (
            replace(RETRIED, attempt_log=(FAILED, THROTTLED, replace(DELIVERED, waited_seconds=1.99))),
            "a wait of Retry-After after the second failure",
        ),
        (replace(RETRIED, verified=4), "three requests that verify: there were 4"),
        (replace(RETRIED, refused=1), "a valid signature in each request: 1 refused"),
    ],
)
def test_retries_with_one_deviation_fail(miss: retries.Seen, missing: str) -> None:
    """With an unexpected attempt, wait or signature the chapter fails."""
    chapter = retries.judge(miss)
    assert not chapter.holds
    assert missing in chapter.missing


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(REPLAYED, before_replay="pending"), "state dead_letter before the replay: it was pending"),
        (replace(REPLAYED, after_replay="dead_letter"), "state delivered after the replay: it is dead_letter"),
        (replace(REPLAYED, attempt_log=REPLAYED.attempt_log[:2]), "attempts with the answers 500, 500 and 204"),
        (replace(REPLAYED, delivery_ids=2), "one delivery id in all requests: there were 2"),
        (replace(REPLAYED, refused=1), "a valid signature in each request: 1 refused"),
    ],
)
def test_a_dead_letter_with_one_deviation_fails(miss: dead_letter.Seen, missing: str) -> None:
    """With an unexpected state, attempt or id the chapter fails."""
    chapter = dead_letter.judge(miss)
    assert not chapter.holds
    assert (missing,) == chapter.missing


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(X_SIGNED, deliveries=4), "5 deliveries: there were 4"),
        (replace(X_SIGNED, verified=4), "5 requests that verify: there were 4"),
        (replace(X_SIGNED, delivered=4), "5 deliveries on record: there were 4"),
        (replace(X_SIGNED, refused=1), "a valid signature in each request: 1 refused"),
    ],
)
def test_an_unverified_x_webhook_request_fails(miss: x_webhook.Seen, missing: str) -> None:
    """With one request that is not verified or not recorded the chapter fails."""
    chapter = x_webhook.judge(miss)
    assert not chapter.holds
    assert (missing,) == chapter.missing


def arrival(*secrets: int) -> Arrival:
    """Return a request that these secrets verify."""
    return Arrival(delivery_id="id", verified_by=frozenset(secrets), status=204 if secrets else 401)


def test_requests_are_counted_by_the_verifying_secrets() -> None:
    """Requests are counted by the secrets that verify them, and after the revocation by whether one was older."""
    arrivals = [
        arrival(1),
        arrival(1),
        arrival(1, 2),
        arrival(2),
        arrival(),
        arrival(3),
        arrival(3),
        arrival(1, 2),
        arrival(),
        arrival(2, 3),
    ]
    seen = rotation.summarise(arrivals, 6, {"delivered": 7, "pending": 2})
    assert (9, 7) == (seen.deliveries, seen.delivered)
    assert (2, 2, 2, 2, 2) == (seen.old, seen.both, seen.new, seen.other, seen.refused)
    assert (True, 4, 2) == (seen.complete, seen.after, seen.older_after)


def test_no_request_follows_an_incomplete_revocation() -> None:
    """Then no request counts as after it."""
    seen = rotation.summarise([arrival(1), arrival(3)], None, {})
    assert (False, 0, 0) == (seen.complete, seen.after, seen.older_after)


def test_a_wait_begins_at_the_end_of_the_previous_attempt() -> None:
    """The wait begins at the end of the previous attempt, or at its start if its end is unknown."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    log = [
        {"number": 1, "started_at": start, "duration_ms": 250, "status": 500, "outcome": "server_error"},
        {
            "number": 2,
            "started_at": start + timedelta(seconds=1),
            "duration_ms": None,
            "status": None,
            "outcome": "unknown",
        },
        {
            "number": 3,
            "started_at": start + timedelta(seconds=3),
            "duration_ms": 9,
            "status": 204,
            "outcome": "delivered",
        },
    ]
    assert [None, 0.75, 2.0] == [attempt.waited_seconds for attempt in parse_attempts(log)]
    assert [(1, 500, "server_error"), (2, None, "unknown"), (3, 204, "delivered")] == [
        (attempt.number, attempt.status, attempt.outcome) for attempt in parse_attempts(log)
    ]


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(STALE, waited_for=None), "a delivery that waits for its secret: it waited for None"),
        (replace(STALE, arrived_before=1), "no request with the revoked secret: 1 came"),
        (replace(STALE, accepted=0), "one accepted endpoint: there were 0"),
        (replace(STALE, verified=0), "one request that verifies: there were 0"),
        (replace(STALE, refused=1), "a valid signature in each request: 1 refused"),
    ],
)
def test_a_stale_row_with_one_deviation_fails(miss: stale.Seen, missing: str) -> None:
    """If a revoked secret signed, or the restore was not accepted, the chapter fails."""
    chapter = stale.judge(miss)
    assert not chapter.holds
    assert (missing,) == chapter.missing


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("miss", "missing"),
    [
        (replace(CHANGED, moved=0), "secrets sealed under the new key"),
        (replace(CHANGED, left=1), "all secrets under the new key: 1 are left"),
        (replace(CHANGED, old_key=None), "state retired of the old key: it is None"),
        (replace(CHANGED, meanwhile=9), "10 requests during the change: there were 9"),
        (replace(CHANGED, after=9), "10 requests after it: there were 9"),
        (replace(CHANGED, refused=1), "a valid signature in each request: 1 refused"),
        (replace(CHANGED, verified=49), "1 deliveries that verify"),
        (replace(CHANGED, delivered=49), "1 deliveries on record"),
    ],
)
def test_a_key_change_with_one_deviation_fails(miss: master_key.Seen, missing: str) -> None:
    """With a secret under the old key, a step without traffic or a failed delivery the chapter fails."""
    chapter = master_key.judge(miss)
    assert not chapter.holds
    assert (missing,) == chapter.missing
