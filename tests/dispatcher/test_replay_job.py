"""Which conditions and rates a replay job may have, and how its progress is calculated."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from hookseal.dispatcher.core import replay_job
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import NOT_DELIVERED, JobState, ReplayJob, Selection, Tally
from hookseal.errors import Malformed
from hookseal.ground.ids import ReplayId, TenantId
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("DEL-07", part="jobs")

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
ACME = TenantId("acme")
JOB = ReplayJob(
    replay_id=ReplayId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394"),
    selection=Selection(tenant_id=ACME),
    state=JobState.RUNNING,
    rate=100,
    matched=10,
    started_at=NOW,
    moved_at=NOW,
    ended_at=None,
    tally=Tally(replayed=4, disabled=2, deleted=1),
)


@pytest.mark.parametrize(("text", "number"), [("1/s", 1), ("100", 100), ("1000/s", 1_000)])
def test_a_rate_is_1_to_1000(text: str, number: int) -> None:
    """A rate is 1 to 1000 deliveries a second."""
    assert number == replay_job.rate(text)


@pytest.mark.parametrize("text", ["", "0/s", "1001/s", "5/m", "-1/s", "1.5/s", "1/s ", "٣/s", "9999999/s"])
def test_an_invalid_rate_names_the_limits(text: str) -> None:
    """Everything else is refused, naming the limits."""
    with pytest.raises(Malformed, match="1/s to 1000/s") as caught:
        replay_job.rate(text)
    assert "rate" == caught.value.field


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"states": ()}, "state"),
        ({"states": (State.PENDING,)}, "state"),
        ({"states": (State.FAILED, State.SENDING)}, "state"),
        ({"since": datetime(1999, 12, 31, tzinfo=UTC)}, "since"),
        ({"until": datetime(9000, 1, 1, tzinfo=UTC)}, "until"),
        ({"since": datetime(2000, 1, 1, tzinfo=EAST)}, "since"),
        ({"until": datetime(8999, 12, 31, 23, tzinfo=WEST)}, "until"),
        ({"since": datetime(1, 1, 1, tzinfo=EAST)}, "since"),
        ({"until": datetime(9999, 12, 31, 23, tzinfo=WEST)}, "until"),
        ({"since": NOW, "until": NOW}, "since"),
    ],
)
def test_an_impossible_condition_is_refused(given: dict[str, Any], field: str) -> None:
    """Unfinished states, and times that PostgreSQL or Python cannot use, are refused."""
    with pytest.raises(Malformed) as caught:
        Selection(tenant_id=ACME, **given)
    assert field == caught.value.field


def test_the_default_selects_undelivered_deliveries() -> None:
    """Without conditions a selection is everything of the tenant that is finished and was not delivered."""
    assert set(State) - {State.PENDING, State.SENDING, State.DELIVERED} == set(NOT_DELIVERED)
    assert {
        "endpoint_id": None, "event_type": None, "event_id": None, "since": None, "until": None,
        "states": ["dead_letter", "failed", "cancelled"],
    } == Selection(tenant_id=ACME).shown()  # fmt: skip


@pytest.mark.parametrize(
    ("state", "matched", "remaining", "changed"),
    [
        (JobState.RUNNING, 10, 3, 0),
        (JobState.DONE, 10, 0, 3),
        (JobState.CANCELLED, 10, 3, 0),
        (JobState.RUNNING, 5, 0, 0),
        (JobState.DONE, 5, 0, 0),
    ],
)
def test_remaining_deliveries_are_known_until_the_end(
    state: JobState, matched: int, remaining: int, changed: int
) -> None:
    """Deliveries that the job has not reached count as remaining, and as changed once it is done."""
    shown = replace(JOB, state=state, matched=matched).shown()

    assert (4, {"endpoint_disabled": 2, "endpoint_deleted": 1, "changed": changed}, remaining) == (
        shown["replayed"], shown["skipped"], shown["remaining"],
    )  # fmt: skip
    assert Tally(replayed=8, disabled=4, deleted=2) == JOB.tally + JOB.tally
