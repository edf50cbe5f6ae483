"""A connection discards its plans after a slow statement if they may be old; less and less often if they stay slow."""

import itertools

from hookseal.postgres.connect import LONGEST_SECONDS, PLANS_LAST_SECONDS, SLOW_SECONDS, Plans

_FAST = SLOW_SECONDS / 2


def _begun(now: float) -> Plans:
    """Return the plans of a connection on which `claim` was planned at that time."""
    plans = Plans()
    assert not plans.are_old("claim", took_seconds=SLOW_SECONDS, now=now)  # its time is that of making the plan, too
    return plans


def _discarded(plans: Plans, *, begin: float, end: float) -> list[int]:
    """Return when the plans are discarded, in seconds, if a statement is slow in each tenth of a second."""
    tenths = range(round(begin * 10), round(end * 10))
    return [tenth // 10 for tenth in tenths if plans.are_old("claim", took_seconds=SLOW_SECONDS, now=tenth / 10)]


def test_a_fast_statement_discards_nothing() -> None:
    """Its plan is good, however old it is."""
    plans = _begun(0.0)

    assert not plans.are_old("claim", took_seconds=_FAST, now=1_000.0)


def test_a_first_use_discards_nothing() -> None:
    """It includes the making of the plan, which may take long."""
    plans = _begun(0.0)

    assert not plans.are_old("record", took_seconds=1.0, now=1_000.0)


def test_young_plans_stay() -> None:
    """The table has not grown much since they were made."""
    plans = _begun(0.0)

    assert not plans.are_old("claim", took_seconds=1.0, now=PLANS_LAST_SECONDS - 0.1)
    assert plans.are_old("claim", took_seconds=1.0, now=PLANS_LAST_SECONDS)


def test_while_all_is_slow_plans_last_longer_and_longer() -> None:
    """So a busy machine does not spend its time on plans: each costs a connection up to 30 ms of CPU."""
    moments = _discarded(_begun(0.0), begin=0.0, end=400.0)

    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert PLANS_LAST_SECONDS == moments[0]
    assert [5, 10, 20, 40] == pauses[:4]
    assert pauses[4:]
    assert all(LONGEST_SECONDS <= each <= LONGEST_SECONDS + 1 for each in pauses[4:])


def test_after_a_while_without_a_slow_statement_plans_last_as_at_first() -> None:
    """A slow one then says something about its plan again."""
    plans = _begun(0.0)
    _discarded(plans, begin=0.0, end=400.0)

    moments = _discarded(plans, begin=1_000.0, end=1_006.0)

    assert [1_000, 1_005] == moments
