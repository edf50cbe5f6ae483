"""The demo says yes only if every delivery was verified by its receiver and is on record."""

from dataclasses import replace

import pytest

from hookseal.demo.story import Line, Result

LINE = Line(tenant="acme", endpoint="/acme/everything", deliveries=3, delivered=3, verified=3, refused=0)


def result(*lines: Line) -> Result:
    """Return how a story with these endpoints ended."""
    return Result(events=3, lines=lines, seconds=1.0)


@pytest.mark.req("OPS-08")
def test_it_holds() -> None:
    """All delivered, all verified, none refused: it holds."""
    assert result(LINE, replace(LINE, tenant="globex", deliveries=1, delivered=1, verified=1)).holds


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    "miss",
    [
        replace(LINE, refused=1),  # a signature that did not hold
        replace(LINE, verified=2),  # one that never arrived
        replace(LINE, delivered=2),  # one that arrived and is not on record
        replace(LINE, verified=4),  # one that nobody published
        replace(LINE, delivered=4),
        replace(LINE, deliveries=4),
        replace(LINE, deliveries=0, delivered=0, verified=0),  # nothing that could have failed
    ],
)
def test_it_does_not_hold(miss: Line) -> None:
    """One miss of any kind at one endpoint, and it does not hold."""
    assert not result(LINE, miss).holds
    assert not result(miss, LINE).holds


@pytest.mark.req("OPS-08")
def test_a_story_without_endpoints_does_not_hold() -> None:
    """Nothing proves nothing."""
    assert not result().holds
