"""Log lines are written together within a turn of the event loop, and at once outside a loop."""

import asyncio
import io
import threading

from hookseal.ground.log import PORTION_BYTES, LineWriter


class Stream(io.StringIO):
    """A stream that records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    @property
    def writes(self) -> int:
        """Return the number of writes."""
        return len(self.texts)

    def write(self, text: str) -> int:
        """Record one write."""
        self.texts.append(text)
        return super().write(text)


def test_without_a_loop_each_line_is_written_at_once() -> None:
    """Outside an event loop each line is written at once, since nothing could write it later."""
    stream = Stream()
    lines = LineWriter(stream)
    lines.write("one")
    assert "one\n" == stream.getvalue()
    lines.write("two")
    assert ("one\ntwo\n", 2) == (stream.getvalue(), stream.writes)


async def test_the_lines_of_one_turn_are_written_together() -> None:
    """The lines of one turn of the loop are written in one piece, in order, when the turn is over."""
    stream = Stream()
    lines = LineWriter(stream)
    for number in range(100):
        lines.write(str(number))
    assert "" == stream.getvalue()
    await asyncio.sleep(0)
    assert ("".join(f"{number}\n" for number in range(100)), 1) == (stream.getvalue(), stream.writes)
    lines.write("next")
    await asyncio.sleep(0)
    assert 2 == stream.writes


async def test_no_write_is_longer_than_a_pipe_accepts() -> None:
    """No write is longer than a pipe accepts as a whole, except for a single long line; no line is split."""
    stream = Stream()
    lines = LineWriter(stream)
    logged_lines = ["é" * 300 for _ in range(20)] + ["x" * 5_000, "y"]
    for line in logged_lines:
        lines.write(line)
    await asyncio.sleep(0)

    assert "".join(f"{line}\n" for line in logged_lines) == stream.getvalue()
    assert [6, 6, 6, 2, 1, 1] == [text.count("\n") for text in stream.texts]
    assert all(len(text.encode()) <= PORTION_BYTES for text in stream.texts if not text.startswith("x"))


async def test_a_line_of_another_thread_is_written_at_once() -> None:
    """A line of another thread is written at once, after the waiting lines, and no line is lost or written twice."""
    stream = Stream()
    lines = LineWriter(stream)
    lines.write("loop")
    thread = threading.Thread(target=lines.write, args=("thread",))
    thread.start()
    thread.join()
    assert "loop\nthread\n" == stream.getvalue()
    await asyncio.sleep(0)
    assert "loop\nthread\n" == stream.getvalue()


def test_flush_writes_waiting_lines() -> None:
    """If the loop ends in the turn of a line, the line still waits; `flush`, which runs at exit, writes it."""
    stream = Stream()
    lines = LineWriter(stream)

    async def last() -> None:
        lines.write("last")

    asyncio.run(last())
    lines.flush()
    assert "last\n" == stream.getvalue()
