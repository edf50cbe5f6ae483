"""Log lines on their way to the stream: together within a turn of the event loop, at once without one."""

import asyncio
import io
import threading

from hookseal.ground.log import Lines


class Stream(io.StringIO):
    """Counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        """Write, and count."""
        self.writes += 1
        return super().write(text)


def test_without_a_loop_each_line_is_written_at_once() -> None:
    """Nothing waits where nothing would write it later."""
    stream = Stream()
    lines = Lines(stream)
    lines.write("one")
    assert "one\n" == stream.getvalue()
    lines.write("two")
    assert ("one\ntwo\n", 2) == (stream.getvalue(), stream.writes)


async def test_the_lines_of_one_turn_are_written_together() -> None:
    """They are in the stream, in their order, once the turn is over."""
    stream = Stream()
    lines = Lines(stream)
    for number in range(100):
        lines.write(str(number))
    assert "" == stream.getvalue()
    await asyncio.sleep(0)
    assert ("".join(f"{number}\n" for number in range(100)), 1) == (stream.getvalue(), stream.writes)
    lines.write("next")
    await asyncio.sleep(0)
    assert 2 == stream.writes


async def test_a_line_of_another_thread_is_written_at_once() -> None:
    """It takes those that wait with it, and none is lost or written twice."""
    stream = Stream()
    lines = Lines(stream)
    lines.write("loop")
    thread = threading.Thread(target=lines.write, args=("thread",))
    thread.start()
    thread.join()
    assert "loop\nthread\n" == stream.getvalue()
    await asyncio.sleep(0)
    assert "loop\nthread\n" == stream.getvalue()


def test_what_waits_at_the_end_is_written() -> None:
    """A loop that ends in the turn of a line leaves it behind; `flush`, which runs at exit, writes it."""
    stream = Stream()
    lines = Lines(stream)

    async def last() -> None:
        lines.write("last")

    asyncio.run(last())
    lines.flush()
    assert "last\n" == stream.getvalue()
