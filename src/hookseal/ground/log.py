"""Logs by structlog: on standard error, one JSON object a line, or lines that people read on a terminal.

A value whose name suggests a secret is masked before it is written. Of an exception only classes and places are
written. Libraries that log arguments or payloads at low levels are limited to higher ones. structlog is loaded with the
first line: it takes longer than many a command, and most commands write none.
"""

import asyncio
import atexit
import json
import logging
import re
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, Literal, TextIO

import msgspec

from hookseal.errors import HooksealError, with_advice
from hookseal.ground.clock import SystemClock

_CLOCK: Final = SystemClock()
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

PORTION_BYTES: Final = 4_096  # PIPE_BUF on Linux: a pipe accepts so much as a whole
MOST_WAITING: Final = 1_048_576  # characters of lines that wait for a reader
AGAIN_SECONDS: Final = 0.05  # between two tries to write to a stream that accepts nothing
END_SECONDS: Final = 1.0  # at the end of the process, for what is left
MASK: Final = "[masked]"
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)
_SECRET_NAME: Final = re.compile(
    r"secret(?!s?_(ref|provider))|password|passphrase|master_key|token|authorization|dsn", re.IGNORECASE
)
_SIGNING_SECRET: Final = re.compile(r"whs(?:ec|k|t|c)_[A-Za-z0-9+/=_-]+")
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]*(?=@)")
# arq logs the arguments of every job; what asyncio and aiohttp log at low levels, hookseal logs itself, and so it does
# with an outage, for which a pool of asyncpg logs each connection that it cannot open, and OpenTelemetry each failure.
# OpenTelemetry also logs each header that it cannot read: one for the collector, or a tracestate.
_LIBRARY_LEVELS: Final = {
    "arq": logging.CRITICAL,
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    "asyncpg.pool": logging.ERROR,
    "opentelemetry.exporter.otlp.proto.http.trace_exporter": logging.CRITICAL,
    "opentelemetry.sdk._shared_internal": logging.CRITICAL,
    "opentelemetry.trace": logging.CRITICAL,
    "opentelemetry.util.re": logging.CRITICAL,
}
_MOST_CALLS: Final = 30  # of one exception, the innermost
_MOST_ERRORS: Final = 10  # in one chain
_chosen: Final = deque[Callable[[], None]](maxlen=1)  # what configures structlog, until the first line
_choosing: Final = threading.RLock()


def configure(*, level: LogLevel = "info", style: LogFormat = "json") -> None:
    """Let `logger` and the standard library's logging write to standard error, in this style, from this level on.

    `auto` is the console's style if standard error is a terminal, else JSON.
    """
    _chosen.append(partial(_configure, level, style))
    logging.basicConfig(level=logging.WARNING, handlers=[_First()], force=True)
    for name, quiet_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(quiet_level)


def logger() -> Any:
    """Return a logger of structlog, as it was configured last."""
    import structlog  # noqa: PLC0415 -- see above

    _configure_now()
    return structlog.get_logger()


def _configure_now() -> None:
    with _choosing:
        if _chosen:
            _chosen[-1]()
            _chosen.clear()


def _configure(level: LogLevel, style: LogFormat) -> None:
    import structlog  # noqa: PLC0415 -- see above

    is_terminal = sys.stderr.isatty()
    renderers: list[structlog.typing.Processor] = (
        [_harmless, structlog.dev.ConsoleRenderer(colors=is_terminal, timestamp_key="at", pad_event_to=0)]
        if style == "console" or (style == "auto" and is_terminal)
        else [structlog.processors.JSONRenderer(serializer=_json)]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _with_time,
    ]
    last: list[structlog.typing.Processor] = [_with_calls, mask_secrets, *renderers]
    lines = LineWriter(sys.stderr, dropped=lambda number: structlog.get_logger().warning("log.dropped", lines=number))
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_loggers(lines),
        cache_logger_on_first_use=False,
    )
    # What libraries log through the standard library gets the same format and masking.
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class LineWriter:
    """Writes lines to a stream: all lines of one turn of the event loop together, or each at once outside a loop.

    An event loop never waits for a reader. While a pipe, a socket or a terminal accepts nothing, up to `MOST_WAITING`
    characters wait; further lines are dropped, as are those that cannot be written. Once the stream accepts lines
    again, `dropped` is called with their number.
    """

    def __init__(self, stream: TextIO, *, dropped: Callable[[int], None] = lambda _lines: None) -> None:
        self._stream = stream
        self._dropped = dropped
        # A collected object may log at any allocation, also while its thread holds a lock: so this one is reentrant,
        # and a thread that writes already takes such a line, too. Nobody waits for the stream while holding `_lock`.
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._writer: int | None = None
        self._pieces = deque[str]()
        self._size = self._lost = 0
        self._flushed_by: asyncio.AbstractEventLoop | None = None  # in which `_flush_in` is due
        self._writable = _writable(stream)
        atexit.register(self._end)

    def write(self, line: str) -> None:
        """Add a line, which is written at the end of this turn of the event loop."""
        pieces = _pieces(f"{line}\n")
        with self._lock:
            if self._size + len(line) > MOST_WAITING:
                self._lost += 1
                return
            self._pieces.extend(pieces)
            self._size += len(line) + 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if self._flushed_by is not loop:
                self._flushed_by = loop
                loop.call_soon(self._flush_in, loop)

    def flush(self) -> None:
        """Write all waiting lines, however long that takes. Raises `OSError` if the stream cannot be written."""
        if self._writer == threading.get_ident():
            return
        with self._writing:
            self._write(None)

    def _flush_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what the stream accepts now; try the rest again after a moment. An error only drops lines."""
        self._flushed_by = None
        is_well = True
        if self._writing.acquire(blocking=False):  # else a thread waits for the stream
            try:
                self._write(0.0)
            except (OSError, ValueError):  # its reader has ended, its disk is full, or it is closed
                is_well = False
            finally:
                self._writing.release()
        if self._pieces:
            self._flushed_by = loop
            loop.call_later(AGAIN_SECONDS, self._flush_in, loop)
        elif is_well and self._lost:
            lost, self._lost = self._lost, 0
            self._dropped(lost)

    def _end(self) -> None:
        """Write what is left, as far as the stream accepts it within a second."""
        if self._writing.acquire(timeout=END_SECONDS):  # else a thread still waits for the stream
            with suppress(OSError, ValueError):  # nobody is left to whom it could be reported
                self._write(_CLOCK.monotonic() + END_SECONDS)
            self._writing.release()

    def _write(self, until: float | None) -> None:
        """Write waiting lines in portions, while the stream accepts one until that monotonic time; None: always."""
        self._writer = threading.get_ident()
        try:
            while self._pieces and (until is None or self._writable(until)):
                with self._lock:
                    portion = _portion(self._pieces)
                    self._size -= len(portion)
                try:
                    self._stream.write(portion)
                    self._stream.flush()
                except (OSError, ValueError):
                    self._lost += portion.count("\n")
                    raise
        finally:
            self._writer = None


def _writable(stream: TextIO) -> Callable[[float], bool]:
    """Return a function that waits at most until a monotonic time, and returns whether the stream accepts a portion."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # it is memory, or closed: then the write says so
        return lambda _until: True
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)  # of a pipe: `PORTION_BYTES` fit. An error counts: the write reports it
    return lambda until: bool(poller.poll(max(until - _CLOCK.monotonic(), 0.0) * 1_000))


def _pieces(line: str) -> Sequence[str]:
    """Return the line, or the pieces of it that a pipe accepts as a whole."""
    if len(line.encode("utf-8", "surrogateescape")) <= PORTION_BYTES:
        return (line,)
    most = PORTION_BYTES // 4  # a character has at most four bytes
    return [line[start : start + most] for start in range(0, len(line), most)]


def _portion(pieces: deque[str]) -> str:
    """Remove and return as much as a pipe accepts as a whole, so that lines of several processes never mix.

    Only a line that is longer than that may have others between its pieces.
    """
    portion, size = list[str](), 0
    while pieces:
        size += len(pieces[0].encode("utf-8", "surrogateescape"))
        if portion and size > PORTION_BYTES:
            break
        portion.append(pieces.popleft())
    return "".join(portion)


class _First(logging.Handler):
    """Configures structlog for the first line of a library, and passes the line on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as it was configured."""
        _configure_now()
        logging.getLogger().handle(record)


class _Handler(logging.Handler):
    """Passes what libraries log to the lines."""

    def __init__(self, lines: LineWriter) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record as a line."""
        try:
            self._lines.write(self.format(record))
        except Exception:  # noqa: BLE001 -- a library must not fail because of its log
            self.handleError(record)


class _Logger:
    """The logger to which structlog passes a rendered event."""

    def __init__(self, lines: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = self.log = lines.write


def _loggers(lines: LineWriter) -> Callable[..., _Logger]:
    return lambda *_: _Logger(lines)


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return _ENCODER.encode(event).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: msgspec cannot encode it, json escapes it
        return json.dumps(event, default=str)


def why(error: BaseException) -> dict[str, Any]:
    """Return the fields of a log line about this error: the text of one of hookseal, else its class, with its calls."""
    if isinstance(error, HooksealError):
        return {"reason": with_advice(error)}
    return {"reason": type(error).__name__, "exc_info": error}


def calls(error: BaseException) -> str:
    """Return the class of the error and the chain of calls to its place, a line for each; then those of its causes.

    It has no value: neither the message, nor a line of code, nor an argument. The innermost call comes last.
    """
    return "\n".join(_lines(error, "", _MOST_ERRORS))


def _lines(error: BaseException, intro: str, most: int) -> list[str]:
    frames = [(each.f_code, line) for each, line in traceback.walk_tb(error.__traceback__)]
    left_out = len(frames) - _MOST_CALLS
    lines = [f"{intro}{type(error).__name__}", *([f"  {left_out} outer calls"] if left_out > 0 else [])]
    lines += [f"  {_short(code.co_filename)}:{line} in {code.co_name}" for code, line in frames[-_MOST_CALLS:]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and most > 1:
        lines += _lines(cause, "caused by " if error.__cause__ else "while handling ", most - 1)
    if isinstance(error, BaseExceptionGroup) and most > 1:
        lines += [line for each in error.exceptions[:most] for line in _lines(each, "one of it: ", most // 2)]
    return lines


def _short(file: str) -> str:
    """Return the path of the file below the folder from which Python loaded it."""
    folders = [each for each in sys.path if each and file.startswith(each + "/")]
    return file[len(max(folders, key=len)) + 1 :] if folders else file


def _with_time(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write the time, in UTC, to the millisecond."""
    event["at"] = _CLOCK.now().isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return event


def _with_calls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write the exception that is logged, if there is one, by its class and calls only."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):  # of the standard library
        error = error[1]
    elif error and not isinstance(error, BaseException):
        error = sys.exception()
    if error:
        event["exception"] = calls(error)
    return event


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Spell out characters in texts that steer a terminal; those inside of other values are, by their repr."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if name == "exception" else ""  # which has several lines, of classes and places only
            event[name] = "".join(c if c.isprintable() or c == kept else ascii(c)[1:-1] for c in value)
    return event


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values whose names suggest a secret, and secrets within any text."""
    for name in _secret_names(tuple(event)):
        event[name] = MASK
    for name, value in event.items():
        if type(value) is str:  # most values are plain: this takes half as long as `_mask`
            if "whs" in value or "://" in value:
                event[name] = mask_text(value)
        elif type(value) not in _NUMBERS:
            event[name] = _mask(value)
    return event


def mask_text(text: str) -> str:
    """Return the text with signing secrets, tokens and codes of the API, and users and passwords of urls, masked."""
    if "whs" in text:
        text = _SIGNING_SECRET.sub(MASK, text)
    return _URL_PASSWORD.sub(MASK, text) if "://" in text else text


@lru_cache(maxsize=1_024)
def _secret_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(_sounds_secret, names))


@lru_cache(maxsize=1_024)
def _sounds_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _mask(value: Any) -> Any:
    match value:
        case str():
            return mask_text(value)
        case bytes() | bytearray():
            return MASK
        case dict():
            return {k: MASK if _sounds_secret(str(k)) else _mask(v) for k, v in value.items()}
        case list() | tuple():
            return [_mask(item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return _mask(str(value))
