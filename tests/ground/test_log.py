"""What is logged, and how its lines are written."""

import asyncio
import errno
import fcntl
import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TextIO

import pytest
import structlog
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from hookseal.errors import Unavailable
from hookseal.ground import log
from hookseal.ground.clock import SystemClock
from hookseal.ground.log import MOST_WAITING, PORTION_BYTES, LineWriter

CANARY = "canary of a message, 51a7"
TOKEN = "whst_hunter2-hunter2_GR0hJSktMTU5PUFFSU1RVVldYWVo"
CODE = "whsc_hunter2-hunter2_GR0hJSktMTU5PUFFSU1RVVldYWVo"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


@pytest.fixture(autouse=True)
def _plain_structlog() -> object:
    yield
    log._chosen.clear()
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


def written(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Return the one line that was logged."""
    return json.loads(capsys.readouterr().err)  # type: ignore[no-any-return]


@pytest.mark.req("OPS-03", part="logs")
def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has its event, its level, its time in UTC to the millisecond, and the bound values."""
    log.configure(level="info", style="json")
    log.logger().info("delivery.attempted", attempt=1)

    line = written(capsys)
    assert ("delivery.attempted", "info", 1) == (line["event"], line["level"], line["attempt"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["at"]))


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.parametrize(
    "bound",
    [
        {"secret": "hunter2-hunter2"},
        {"database_password": "hunter2-hunter2"},
        {"note": f"it was {SECRET}!"},
        {"note": f"GET /api {TOKEN} 401"},
        {"note": f"GET /portal/login?code={CODE} 200"},
        {"url": "postgresql://user:hunter2-hunter2@db/x"},
        {"nested": {"deep": [SECRET], "api_token": "hunter2-hunter2"}},
        {"raw": b"hunter2-hunter2"},
        {"thing": ValueError(f"bad {SECRET}")},
    ],
)
def test_secrets_are_masked(capsys: pytest.CaptureFixture[str], bound: dict[str, object]) -> None:
    """No value under the name of a secret, and no secret within a text, reaches the log."""
    log.configure(level="info", style="json")
    log.logger().info("something.happened", **bound)

    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert SECRET not in text
    assert log.MASK in text


@pytest.mark.req("OPS-03", part="logs")
def test_no_header_is_in_a_line_of_opentelemetry(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither one for the collector, which may have a credential, nor the tracestate that somebody has given."""
    log.configure(level="info", style="json")
    parse_env_headers("Authorization: hunter2-hunter2", liberal=True)
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    TraceContextTextMapPropagator().extract({"traceparent": traceparent, "tracestate": "hunter2-hunter2"})

    assert "" == capsys.readouterr().err


@pytest.mark.req("OPS-03", part="logs")
def test_other_values_than_text_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, booleans and None are logged unchanged, also within lists and objects."""
    log.configure(level="info", style="json")
    bound = {"numbers": [1, 2.5, True, None], "of": {"attempt": 3}}
    log.logger().info("something.happened", **bound)

    assert bound == {name: value for name, value in written(capsys).items() if name in bound}


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exception_is_logged_by_class_and_calls(style: log.LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an exception and its causes the log has class, file, line and calls, and no message, argument or code."""
    log.configure(level="info", style=style)
    with pytest.raises(KeyError) as raised:
        fail(CANARY, log.logger())
    log.logger().warning("it.failed", exc_info=raised.value)

    here = "tests/ground/test_log.py"
    assert [
        ("KeyError", [f"{here}:N in test_an_exception_is_logged_by_class_and_calls", f"{here}:N in fail"]),
        ("caused by ValueError", [f"{here}:N in fail"]),
    ] == parts(log.calls(raised.value))
    text = capsys.readouterr().err
    assert 2 == text.count("caused by ValueError")
    assert not re.search(f"{CANARY}|raise |Traceback", text)


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.req("UX-02")
def test_a_terminal_gets_lines_that_people_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `auto`, and only on a terminal, a line is text: with its event first, masked, and unable to steer it."""
    shown = []
    for stream, style in ((Terminal(), "auto"), (io.StringIO(), "auto"), (io.StringIO(), "console")):
        monkeypatch.setattr("sys.stderr", stream)
        log.configure(level="info", style=style)  # type: ignore[arg-type]
        log.logger().info("it.happened", attempt=1, snippet="a\x1b[2Jb\x9b", token="hunter2", of={"c": "\x1b"})
        shown.append(stream.getvalue())
    terminal, pipe, asked = shown
    assert ("it.happened", "a\x1b[2Jb\x9b") == (json.loads(pipe)["event"], json.loads(pipe)["snippet"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal)
    assert (True, plain.partition(" ")[2]) == (terminal != plain, asked.partition(" ")[2])
    assert 1 == asked.count("\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z \[info +\] it\.happened .*\n", asked)
    assert asked.rstrip("\n").isprintable()
    for part in ("attempt=1", "snippet=a\\x1b[2Jb\\x9b", "token=[masked]"):
        assert part in asked
    assert "hunter2" not in "".join(shown)


def test_a_line_says_why_without_a_value() -> None:
    """The text of an error of hookseal is made for people; of any other one, only its class and calls are shown."""
    other = OSError(CANARY)

    assert {"reason": "PostgreSQL does not answer"} == log.why(Unavailable("PostgreSQL does not answer"))
    assert {"reason": "OSError", "exc_info": other} == log.why(other)


def fail(text: str, logger: Any) -> None:
    """Fail with the text in both messages, and log it."""
    try:
        try:
            int(text)
        except ValueError as error:
            raise KeyError(text) from error
    except KeyError:
        logger.exception("it.failed")
        raise


def parts(found: str) -> list[tuple[str, list[str]]]:
    """Return each error with its calls, with N for the numbers of lines."""
    read = list[tuple[str, list[str]]]()
    for line in re.sub(r":[0-9]+ in ", ":N in ", found).splitlines():
        read[-1][1].append(line.strip()) if line.startswith("  ") else read.append((line, []))
    return read


def test_a_deep_or_circular_exception_is_logged_in_part() -> None:
    """Of a recursion without end the innermost calls are logged, of a circle of causes a part."""

    def recurse() -> None:
        recurse()

    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    with pytest.raises(RecursionError) as raised:
        recurse()
    assert 35 > len(log.calls(raised.value).splitlines())
    assert "caused by KeyError" in log.calls(one)
    assert ["ExceptionGroup", "one of it: ValueError"] == log.calls(ExceptionGroup("", [ValueError()])).splitlines()


def test_refs_are_not_masked(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="info", style="json")
    log.logger().info("x", secret_ref="db:acme:n:1", secrets_provider="db")

    assert "db:acme:n:1" == written(capsys)["secret_ref"]


def test_arq_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """The arguments of jobs, which arq logs, are not written, at any log level of hookseal."""
    log.configure(level="debug", style="json")
    logging.getLogger("arq.worker").error("job(%r)", SECRET)

    assert "" == capsys.readouterr().err


def test_an_outage_of_a_pool_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """The pool of asyncpg logs each connection that it cannot open in an outage; hookseal logs the outage once."""
    log.configure(level="info", style="json")
    logging.getLogger("asyncpg.pool").warning("Failed to restore the pool connection floor", exc_info=OSError())

    assert "" == capsys.readouterr().err


@pytest.mark.req("OPS-03", part="logs")
def test_library_logs_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's log line, with its traceback, is one JSON object and masked as any other."""
    log.configure(level="info", style="json")
    try:
        int(SECRET)
    except ValueError:
        logging.getLogger("aiohttp.server").warning("failed with %s", SECRET, exc_info=True)

    line = written(capsys)
    assert ("aiohttp.server", "warning", f"failed with {log.MASK}") == (line["logger"], line["level"], line["event"])
    assert "ValueError" in str(line["exception"])
    assert SECRET not in str(line)


def test_half_a_surrogate_pair_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that UTF-8 cannot encode does not lose the line."""
    log.configure(level="info", style="json")
    log.logger().info("odd", text="\ud800")

    [line] = capsys.readouterr().err.splitlines()
    assert "\ud800" == json.loads(line)["text"]


class Stream(io.StringIO):
    """A stream that records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.problem: OSError | None = None
        self.during: Callable[[], None] | None = None

    @property
    def writes(self) -> int:
        return len(self.texts)

    def write(self, text: str) -> int:
        if self.problem is not None:
            raise self.problem
        if self.during is not None:
            during, self.during = self.during, None
            during()
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
    """No write is longer than a pipe accepts as a whole; only a longer line is split."""
    stream = Stream()
    lines = LineWriter(stream)
    logged_lines = ["é" * 300 for _ in range(20)] + ["x" * 5_000, "y"]
    for line in logged_lines:
        lines.write(line)
    await asyncio.sleep(0)

    assert "".join(f"{line}\n" for line in logged_lines) == stream.getvalue()
    assert [6, 6, 6] == [text.count("\n") for text in stream.texts[:3]]
    assert all(len(text.encode()) <= PORTION_BYTES for text in stream.texts)


async def test_a_line_of_another_thread_is_written_at_once() -> None:
    stream = Stream()
    lines = LineWriter(stream)
    lines.write("loop")
    thread = threading.Thread(target=lines.write, args=("thread",))
    thread.start()
    thread.join()
    assert "loop\nthread\n" == stream.getvalue()
    await asyncio.sleep(0)
    assert "loop\nthread\n" == stream.getvalue()


@pytest.fixture
def stalled() -> Iterator[tuple[int, TextIO]]:
    """Yield a pipe that nobody reads: where to read it, and the stream that writes to it."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    with os.fdopen(write, "w") as stream:
        yield read, stream
    os.close(read)


def read_all(read: int) -> bytes:
    """Return what the pipe holds."""
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(read, 65_536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.req("OPS-03", part="logs")
async def test_a_reader_that_stalls_does_not_stop_the_loop(stalled: tuple[int, TextIO]) -> None:
    """The loop goes on; what a megabyte holds is written later, in order; the rest is counted."""
    read, stream = stalled
    dropped = list[int]()
    lines = LineWriter(stream, dropped=dropped.append)
    written = [f"{number:06}{'x' * 994}" for number in range(1_500)]
    for line in written:
        lines.write(line)
        await asyncio.sleep(0)
    assert [] == dropped
    received = b""
    while not dropped:
        received += read_all(read)
        await asyncio.sleep(0)
    received += read_all(read)
    kept = received.decode().splitlines()

    assert written[: len(kept)] == kept
    assert [len(written) - len(kept)] == dropped
    assert MOST_WAITING // 1_000 <= len(kept) < MOST_WAITING // 1_000 + 100, "the pipe itself holds 64 KB"


async def test_a_thread_that_waits_for_the_reader_does_not_stop_the_loop(stalled: tuple[int, TextIO]) -> None:
    """A line of a thread waits for the reader; those of the loop wait behind it, and none is lost."""
    read, stream = stalled
    lines = LineWriter(stream)

    def write() -> None:
        for _ in range(100):
            lines.write("t" * 1_000)

    thread = threading.Thread(target=write)
    thread.start()
    while not lines._writing.locked():  # noqa: ASYNC110 -- what a thread holds sets no event of the loop
        await asyncio.sleep(0)
    for _ in range(10):
        lines.write("loop")
        await asyncio.sleep(0)
    received = b""
    while thread.is_alive() or lines._pieces:
        received += read_all(read)
        await asyncio.sleep(0)
    received += read_all(read)
    assert (100, 10) == (received.count(b"t\n"), received.count(b"loop\n"))


@pytest.mark.parametrize("characters", [20_000, 60_000])
async def test_a_long_line_waits_in_pieces(stalled: tuple[int, TextIO], characters: int) -> None:
    """A line that is longer than what the pipe holds does not stop the loop either, and arrives whole."""
    read, stream = stalled
    fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 8_192)
    lines = LineWriter(stream)
    lines.write("é" * (characters - 1))
    await asyncio.sleep(0)
    received = b""
    while lines._pieces:
        received += read_all(read)
        await asyncio.sleep(0)
    received += read_all(read)
    assert "é" * (characters - 1) + "\n" == received.decode()


@pytest.mark.req("OPS-03", part="logs")
async def test_a_log_that_cannot_be_written_costs_little(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a reader the lines are dropped: nothing is raised, and the error is not logged in turn, without end."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        lines, flushed = LineWriter(stream), 0
        stream_flush = stream.write

        def counted(text: str) -> int:
            nonlocal flushed
            flushed += 1
            return stream_flush(text)

        stream.write = counted  # type: ignore[method-assign]
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lines.write(str(context)))
        lines.write("one")
        for _ in range(100):
            await asyncio.sleep(0)
        assert (1, 1) == (flushed, lines._lost)
        with suppress(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)  # what the stream still holds goes there


async def test_lost_lines_are_reported_after_the_next_success() -> None:
    """A disk that is full for a while loses lines; the first one that is written again comes with their number."""
    dropped = list[int]()
    stream = Stream()
    lines = LineWriter(stream, dropped=dropped.append)
    stream.problem = OSError(errno.ENOSPC, "full")
    for number in range(3):
        lines.write(str(number))
        await asyncio.sleep(0)
    assert [] == dropped
    stream.problem = None
    lines.write("three")
    await asyncio.sleep(0)
    assert ([3], "three\n") == (dropped, stream.getvalue())


def test_an_object_that_logs_when_it_is_collected_is_no_deadlock() -> None:
    """It may be collected while its thread writes a line: the line of the object comes behind it."""
    stream = Stream()
    lines = LineWriter(stream)
    stream.during = lambda: lines.write("collected")
    lines.write("first")
    assert "first\ncollected\n" == stream.getvalue()


def test_the_end_waits_a_second_for_a_slow_reader(stalled: tuple[int, TextIO]) -> None:
    _, stream = stalled
    lines = LineWriter(stream)
    lines._pieces.extend(["x" * 4_000 + "\n"] * 100)
    began = SystemClock().monotonic()
    lines._end()
    assert SystemClock().monotonic() - began < 30
    assert lines._pieces
    lines._writing.acquire()
    lines._end()
    assert lines._pieces, "a thread waits for the reader"


def test_a_line_of_a_library_that_cannot_be_made_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="info", style="json")
    logging.getLogger("library").warning("%d rows", "no")
    assert "TypeError" in capsys.readouterr().err


def test_flush_writes_waiting_lines() -> None:
    """If the loop ends in the turn of a line, the line still waits; `flush`, which runs at exit, writes it."""
    stream = Stream()
    lines = LineWriter(stream)

    async def last() -> None:
        lines.write("last")

    asyncio.run(last())
    lines.flush()
    assert "last\n" == stream.getvalue()
