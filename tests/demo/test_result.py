"""The demo passes only if every delivery was verified and recorded, and every chapter passed."""

from dataclasses import replace

import pytest

from hookseal.demo.result import Chapter, Line, Result, failed_checks

LINE = Line(tenant="acme", endpoint="/acme/everything", deliveries=3, delivered=3, verified=3, refused=0)
CHAPTER = Chapter(name="rotation", detail="all seen", seen={}, missing=())


def result(*lines: Line, chapters: tuple[Chapter, ...] = (CHAPTER,)) -> Result:
    """Return the result of a demo with these endpoints."""
    return Result(events=3, lines=lines, chapters=chapters, seconds=1.0)


@pytest.mark.req("OPS-08")
def test_a_complete_result_passes() -> None:
    """If all are delivered and verified, none is refused and every chapter passed, the demo passes."""
    other = replace(LINE, tenant="globex", deliveries=1, delivered=1, verified=1)
    assert result(LINE, other, chapters=(CHAPTER, replace(CHAPTER, name="retries"))).holds


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    "miss",
    [
        replace(LINE, refused=1),  # an invalid signature
        replace(LINE, verified=2),  # a delivery that never arrived
        replace(LINE, delivered=2),  # a delivery that arrived and is not recorded
        replace(LINE, verified=4),  # a delivery that was not published
        replace(LINE, delivered=4),
        replace(LINE, deliveries=4),
        replace(LINE, deliveries=0, delivered=0, verified=0),  # no deliveries
    ],
)
def test_one_failure_fails_the_demo(miss: Line) -> None:
    """With one failure of any kind at one endpoint, the demo fails."""
    for ended in (result(LINE, miss), result(miss, LINE)):
        assert not ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_one_failed_chapter_fails_the_demo() -> None:
    """If one chapter misses something, the demo fails, though all deliveries were verified."""
    miss = replace(CHAPTER, missing=("the replay",))
    for chapters in ((CHAPTER, miss), (miss, CHAPTER)):
        ended = result(LINE, chapters=chapters)
        assert ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_an_empty_result_fails() -> None:
    """Without endpoints or without chapters, the demo fails."""
    assert not result().holds
    assert not result(LINE, chapters=()).holds


def test_the_false_checks_are_returned() -> None:
    """The sentences of the false checks are returned, in order."""
    assert ("a", "c") == failed_checks((False, "a"), (True, "b"), (False, "c"))
    assert () == failed_checks((True, "a"))
