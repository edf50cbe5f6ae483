"""The bookkeeping detects every kind of false entry."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hookseal.dispatcher.model import State
from tests.faults.balance import Books, Delivery, Recorded, balance
from tests.faults.recording_receiver import Seen

SEEN = Seen(delivery_id="d", attempt=2, path="/0", digest=b"x", is_verified=True, at=0.0, answered=204)
CUT_OFF = Seen(delivery_id="d", attempt=1, path="/0", digest=b"x", is_verified=True, at=0.0)
DELIVERY = Delivery(id="d", state="delivered", attempts=2, digest=b"x", is_leased=False)
UNKNOWN = Recorded(delivery_id="d", number=1, outcome="unknown", status=None, worker="w1")
DELIVERED = Recorded(delivery_id="d", number=2, outcome="delivered", status=204, worker="w2")
# An attempt was sent, its worker was killed before the record, and the delivery was sent again.
TRUE = Books(
    published=("d",),
    seen=(CUT_OFF, SEEN),
    deliveries=(DELIVERY,),
    attempts=(UNKNOWN, DELIVERED),
    redis_keys=(),
    dead=("w1",),
)


def seen(**changes: object) -> Callable[[Books], Books]:
    """Return the change of the books that changes the last request."""
    return lambda books: replace(books, seen=(CUT_OFF, replace(SEEN, **changes)))  # type: ignore[arg-type]


def attempt(**changes: object) -> Callable[[Books], Books]:
    """Return the change of the books that changes the last attempt."""
    return lambda books: replace(books, attempts=(UNKNOWN, replace(DELIVERED, **changes)))  # type: ignore[arg-type]


def delivery(**changes: object) -> Callable[[Books], Books]:
    """Return the change of the books that changes the delivery."""
    return lambda books: replace(books, deliveries=(replace(DELIVERY, **changes),))  # type: ignore[arg-type]


def test_correct_books_balance() -> None:
    """A request that was sent and not recorded is a duplicate that the record explains."""
    found = balance(TRUE)
    found.require(deliveries=1, requests=2, lost=0, duplicates=1, unexplained=0, unknown=1, wrong=0)
    assert "every law holds" in str(found)


@pytest.mark.parametrize(
    ("falsify", "law"),
    [
        pytest.param(lambda b: replace(b, published=("d", "e")), "published and never seen", id="lost"),
        pytest.param(lambda b: replace(b, seen=()), "published and never seen", id="never-seen"),
        pytest.param(delivery(state="pending"), "published and never seen", id="not-ended"),
        pytest.param(delivery(state="dead_letter"), "ended in the wrong state", id="state"),
        pytest.param(lambda b: replace(b, ends={"d": State.FAILED}), "ended in the wrong state", id="other-state"),
        pytest.param(lambda b: replace(b, seen=(CUT_OFF, SEEN, SEEN)), "without a reason", id="attempt-twice"),
        pytest.param(seen(attempt=3), "without a reason", id="attempt-not-on-record"),
        pytest.param(lambda b: replace(b, published=()), "never published", id="stranger"),
        pytest.param(seen(digest=b"y"), "another body", id="body"),
        pytest.param(seen(is_verified=False), "unsigned", id="signature"),
        pytest.param(seen(answered=503), "cannot have been", id="answer"),
        pytest.param(attempt(outcome="server_error", status=500), "cannot have been", id="outcome"),
        pytest.param(attempt(number=1), "numbered with gaps", id="gap"),
        pytest.param(
            lambda b: replace(b, attempts=(replace(DELIVERED, number=1), DELIVERED)), "cannot have been", id="two-ends"
        ),
        pytest.param(lambda b: replace(b, dead=()), "cannot have been", id="unknown-of-the-living"),
        pytest.param(delivery(attempts=3), "numbered with gaps", id="too-few"),
        pytest.param(delivery(is_leased=True), "under a lease", id="lease"),
        pytest.param(lambda b: replace(b, redis_keys=("arq:job:d",)), "left in Redis", id="redis"),
    ],
)
def test_every_false_entry_breaks_a_law(falsify: Callable[[Books], Books], law: str) -> None:
    """Every false entry breaks a law, which the report names."""
    found = balance(falsify(TRUE))
    assert 0 < found.counts["wrong"]
    assert [] != [line for line in found.wrong if law in line]
    with pytest.raises(AssertionError, match=law):
        found.require()


def test_another_count_fails() -> None:
    """A count that differs from the required one fails, with both numbers."""
    with pytest.raises(AssertionError, match=r"'duplicates': \(0, 1\)"):
        balance(TRUE).require(duplicates=0)
