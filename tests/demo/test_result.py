"""The demo says yes only if every delivery was verified by its receiver and is on record, and every chapter held."""

from dataclasses import replace

import pytest

from hookseal.demo.result import Chapter, Line, Result, lacking

LINE = Line(tenant="acme", endpoint="/acme/everything", deliveries=3, delivered=3, verified=3, refused=0)
CHAPTER = Chapter(name="rotation", detail="all seen", seen={}, missing=())


def result(*lines: Line, chapters: tuple[Chapter, ...] = (CHAPTER,)) -> Result:
    """Return how a story with these endpoints ended."""
    return Result(events=3, lines=lines, chapters=chapters, seconds=1.0)


@pytest.mark.req("OPS-08")
def test_it_holds() -> None:
    """All delivered, all verified, none refused, every chapter held: it holds."""
    other = replace(LINE, tenant="globex", deliveries=1, delivered=1, verified=1)
    assert result(LINE, other, chapters=(CHAPTER, replace(CHAPTER, name="retries"))).holds


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
    for ended in (result(LINE, miss), result(miss, LINE)):
        assert not ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_one_chapter_that_does_not_hold() -> None:
    """One chapter in which something is missing, and the story does not hold, though all verified."""
    miss = replace(CHAPTER, missing=("the replay",))
    for chapters in ((CHAPTER, miss), (miss, CHAPTER)):
        ended = result(LINE, chapters=chapters)
        assert ended.all_verified
        assert not ended.holds


@pytest.mark.req("OPS-08")
def test_a_story_of_nothing_does_not_hold() -> None:
    """Nothing proves nothing: neither without endpoints nor without chapters does it hold."""
    assert not result().holds
    assert not result(LINE, chapters=()).holds


def test_what_is_lacking() -> None:
    """What did not come true is told, in order, and nothing else."""
    assert ("a", "c") == lacking((False, "a"), (True, "b"), (False, "c"))
    assert () == lacking((True, "a"))
