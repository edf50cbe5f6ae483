"""Stale rows: those that contradict the audit log, or are older than what this process has seen."""

from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from hookseal.errors import StaleRow
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core.trust import APART, GenerationsSeen, require_fresh_record
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, OTHER_ENDPOINT, OTHER_TENANT

pytestmark = pytest.mark.req("SEC-24", part="stale")


@pytest.mark.req("SEC-24", part="stale")
@pytest.mark.parametrize(
    ("state", "pointed", "key_id", "audited", "drained", "problem"),
    [
        ("active", "active", "a", "a", False, None),
        ("previous", "previous", "a", None, False, None),
        ("retired", None, "a", None, False, None),
        ("active", None, "a", "a", False, None),
        ("retired", "active", "a", "a", False, "is retired and its endpoint has it as active"),
        ("active", "previous", "a", None, False, "is active and its endpoint has it as previous"),
        ("active", "active", "b", "a", False, "under another master key"),
        ("retired", None, "b", "a", False, "under another master key"),
        ("active", "active", "a", "a", True, "that a re-wrap left no record of"),
    ],
)
def test_a_contradicting_record_is_stale(
    *, state: str, pointed: str | None, key_id: str, audited: str | None, drained: bool, problem: str | None
) -> None:
    """A record is stale if its state contradicts its endpoint's row, or its master key the audit log or a re-wrap."""
    with nullcontext() if problem is None else pytest.raises(StaleRow, match=problem):
        require_fresh_record(
            state=state, pointed=pointed, key_id=key_id, audited_key_id=audited, key_is_drained=drained
        )


def read(generation: int, *, after: timedelta = timedelta(), **changes: Any) -> Pointer:
    """Return the pointer at this generation, read so long after the first."""
    return replace(BARE, generation=generation, read_at=BARE.read_at + after, **changes)


def test_a_row_that_falls_behind_is_stale() -> None:
    """Two seconds after a generation was read, every lower one is refused, and no other."""
    seen = GenerationsSeen()
    for generation in (3, 3, 5):
        seen.require_newest(read(generation))

    for _ in range(2):
        with pytest.raises(StaleRow, match="generation 4, this process knows 5"):
            seen.require_newest(read(4, after=APART))
    seen.require_newest(read(5, after=APART))
    seen.require_newest(read(6, after=APART))


def test_claims_at_the_same_time_may_be_served_in_either_order() -> None:
    """A claim from just before a move is accepted, even if it is processed after one from after the move."""
    seen = GenerationsSeen()
    seen.require_newest(read(2, after=timedelta(seconds=60)))

    seen.require_newest(read(1, after=timedelta(seconds=59)))
    seen.require_newest(read(1, after=timedelta(seconds=62) - timedelta(microseconds=1)))
    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=timedelta(seconds=62)))


def test_a_move_restarts_the_tolerance() -> None:
    """The two seconds count from when the highest generation was first read, not from when the endpoint was."""
    seen = GenerationsSeen()
    for generation, seconds in ((1, 0), (2, 10), (1, 11)):
        seen.require_newest(read(generation, after=timedelta(seconds=seconds)))


def test_reading_again_does_not_restart_the_tolerance() -> None:
    """Reading the highest generation again does not restart the two seconds."""
    seen = GenerationsSeen()
    for seconds in (0, 10):
        seen.require_newest(read(2, after=timedelta(seconds=seconds)))

    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=timedelta(seconds=11)))


def test_endpoints_do_not_affect_each_other() -> None:
    """The generation of one endpoint does not affect another endpoint or tenant."""
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))


def test_an_accepted_restore_discards_what_was_seen() -> None:
    """A newer restore epoch discards the seen generations; a concurrent claim of the older epoch is accepted."""
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(2, after=APART, restore_epoch=1))
    seen.require_newest(read(1, after=2 * APART - timedelta(microseconds=1), restore_epoch=0))
    with pytest.raises(StaleRow, match="this process knows 2"):
        seen.require_newest(read(1, after=2 * APART, restore_epoch=1))


def test_a_lower_restore_epoch_is_stale() -> None:
    """A lower restore epoch, two seconds after a higher one was read, means a stale database."""
    seen = GenerationsSeen()
    seen.require_newest(read(5, restore_epoch=1))

    with pytest.raises(StaleRow, match="before a restore that this process knows was accepted"):
        seen.require_newest(read(9, after=APART, restore_epoch=0))


def test_the_least_recently_seen_endpoint_is_forgotten() -> None:
    """Above the limit the least recently seen endpoint is forgotten."""
    seen = GenerationsSeen(most=2)
    for endpoint in (BARE.endpoint_id, OTHER_ENDPOINT, BARE.endpoint_id):
        seen.require_newest(read(5, endpoint_id=endpoint))
    seen.require_newest(read(5, tenant_id=OTHER_TENANT))

    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))
    with pytest.raises(StaleRow):
        seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
