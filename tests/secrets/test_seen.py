"""What a process remembers of generations: a row that falls behind what was read before was put back."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import SecretRolledBack
from hookseal.secrets.seen import APART, GenerationsSeen
from tests.secrets.samples import BARE, OTHER_ENDPOINT, OTHER_TENANT

pytestmark = pytest.mark.req("SEC-24", part="put-back")


def read(generation: int, *, after: timedelta = timedelta(), **changes: Any) -> Pointer:
    """Return the pointer at that generation, read so long after the first."""
    return replace(BARE, generation=generation, read_at=BARE.read_at + after, **changes)


def test_a_row_that_falls_behind_was_put_back() -> None:
    """Two seconds after a generation was read a lower one is refused, again and again, and no other."""
    seen = GenerationsSeen()
    for generation in (3, 3, 5):
        seen.require_newest(read(generation))

    for _ in range(2):
        with pytest.raises(SecretRolledBack, match="generation 4, this process knows 5"):
            seen.require_newest(read(4, after=APART))
    seen.require_newest(read(5, after=APART))
    seen.require_newest(read(6, after=APART))


def test_claims_at_the_same_time_may_be_served_in_either_order() -> None:
    """A claim that was made just before the row moved is no finding, though it is served after one that saw it move."""
    seen = GenerationsSeen()
    seen.require_newest(read(2, after=timedelta(seconds=60)))

    seen.require_newest(read(1, after=timedelta(seconds=59)))
    seen.require_newest(read(1, after=timedelta(seconds=62) - timedelta(microseconds=1)))
    with pytest.raises(SecretRolledBack):
        seen.require_newest(read(1, after=timedelta(seconds=62)))


def test_a_move_begins_the_two_seconds_anew() -> None:
    """They count from when the highest generation was first read, not from when the endpoint was."""
    seen = GenerationsSeen()
    for generation, seconds in ((1, 0), (2, 10), (1, 11)):
        seen.require_newest(read(generation, after=timedelta(seconds=seconds)))


def test_to_read_it_again_begins_nothing_anew() -> None:
    """However often the highest generation is read, a lower one is refused two seconds after the first time."""
    seen = GenerationsSeen()
    for seconds in (0, 10):
        seen.require_newest(read(2, after=timedelta(seconds=seconds)))

    with pytest.raises(SecretRolledBack):
        seen.require_newest(read(1, after=timedelta(seconds=11)))


def test_endpoints_and_tenants_are_apart() -> None:
    """The generation of one endpoint says nothing of another's."""
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))


def test_an_accepted_restore_begins_anew() -> None:
    """Under a newer epoch what was seen is forgotten; a claim of the older one is no finding then."""
    seen = GenerationsSeen()
    seen.require_newest(read(5))

    seen.require_newest(read(2, after=APART, restore_epoch=1))
    seen.require_newest(read(1, after=2 * APART - timedelta(microseconds=1), restore_epoch=0))
    with pytest.raises(SecretRolledBack, match="this process knows 2"):
        seen.require_newest(read(1, after=2 * APART, restore_epoch=1))


def test_a_database_of_before_an_accepted_restore() -> None:
    """An epoch that is older than one that was read two seconds before comes from a database that was put back."""
    seen = GenerationsSeen()
    seen.require_newest(read(5, restore_epoch=1))

    with pytest.raises(SecretRolledBack, match="before a restore that this process knows was accepted"):
        seen.require_newest(read(9, after=APART, restore_epoch=0))


def test_what_was_seen_least_recently_leaves() -> None:
    """So much is remembered and no more; whoever was shown last stays."""
    seen = GenerationsSeen(most=2)
    for endpoint in (BARE.endpoint_id, OTHER_ENDPOINT, BARE.endpoint_id):
        seen.require_newest(read(5, endpoint_id=endpoint))
    seen.require_newest(read(5, tenant_id=OTHER_TENANT))

    seen.require_newest(read(1, after=APART, endpoint_id=OTHER_ENDPOINT))
    with pytest.raises(SecretRolledBack):
        seen.require_newest(read(1, after=APART, tenant_id=OTHER_TENANT))
