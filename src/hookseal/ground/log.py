"""Logs by structlog: one JSON object a line on standard error, or lines that people read.

A value whose name suggests a secret is masked before it is written. Of an exception only classes and places are
written. Libraries that log arguments or payloads at low levels are limited to higher ones.
"""

import asyncio
import atexit
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog

from hookseal.errors import HooksealError, with_advice

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

PORTION_BYTES: Final = 4_096  # PIPE_BUF on Linux: a pipe accepts so much as a whole
MASK: Final = "[masked]"
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)
_SECRET_NAME: Final = re.compile(
    r"secret(?!s?_(ref|provider))|password|passphrase|master_key|token|authorization|dsn", re.IGNORECASE
)
_SIGNING_SECRET: Final = re.compile(r"whs(?:ec|k)_[A-Za-z0-9+/=_-]+")
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]*(?=@)")
# arq logs the arguments of every job; what asyncio and aiohttp log at low levels, hookseal logs itself, and so it does
# with an outage, for which a pool of asyncpg logs each connection that it cannot open.
_LIBRARY_LEVELS: Final = {
    "arq": logging.CRITICAL,
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    "asyncpg.pool": logging.ERROR,
}
_MOST_CALLS: Final = 30  # of one exception, the innermost
_MOST_ERRORS: Final = 10  # in one chain


def configure(*, level: LogLevel = "info", style: LogFormat = "json") -> None:
    """Configure structlog and the standard library's logging: standard error, in this style, from this level on."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_json)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    last: list[structlog.typing.Processor] = [_with_calls, mask_secrets, renderer]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_loggers(LineWriter(sys.stderr)),
        cache_logger_on_first_use=False,
    )
    # What libraries log through the standard library gets the same format and masking.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name, quiet_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(quiet_level)


class LineWriter:
    """Writes lines to a stream: all lines of one turn of the event loop together, or each at once outside a loop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        atexit.register(self.flush)

    def write(self, line: str) -> None:
        """Add a line, which is written at the end of this turn of the event loop."""
        with self._lock:
            self._waiting.append(line)
            is_first = len(self._waiting) == 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if is_first:
                loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write all waiting lines."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for text in _portions(waiting):
                self._stream.write(text)
                self._stream.flush()


def _portions(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines in portions that a pipe accepts as a whole, so that lines of several processes never mix.

    A longer line is a portion by itself.
    """
    portion, size = "", 0
    for line in lines:
        more = len(line.encode("utf-8", "surrogateescape")) + 1
        if portion and size + more > PORTION_BYTES:
            yield portion
            portion, size = "", 0
        portion, size = f"{portion}{line}\n", size + more
    if portion:
        yield portion


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


def _with_calls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write the exception that is logged, if there is one, by its class and calls only."""
    found = event.pop("exc_info", None)
    if isinstance(found, tuple):  # of the standard library
        found = found[1]
    elif found and not isinstance(found, BaseException):
        found = sys.exception()
    if found:
        event["exception"] = calls(found)
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
    """Return the text with signing secrets, and the user and password of urls, masked."""
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
