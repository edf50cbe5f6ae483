"""Logs: structlog, one JSON object a line on standard error, or readable lines for a person.

Whatever a caller binds, a value under a name that sounds like a secret is masked before it is
written. Libraries that print arguments or payloads at low levels are kept quiet.
"""

import asyncio
import atexit
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import msgspec
import structlog

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

MASK: Final = "[masked]"
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)
_SECRET_NAME: Final = re.compile(
    r"secret(?!s?_(ref|provider))|password|passphrase|master_key|token|authorization|dsn", re.IGNORECASE
)
_SIGNING_SECRET: Final = re.compile(r"whs(?:ec|k)_[A-Za-z0-9+/=_-]+")
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]*(?=@)")
# arq prints the arguments of every job, and asyncpg and aiohttp have nothing to say that we do not.
_QUIET: Final = {"arq": logging.CRITICAL, "asyncio": logging.WARNING, "aiohttp": logging.WARNING}


def configure(*, level: LogLevel = "info", style: LogFormat = "json") -> None:
    """Make structlog write to standard error in that style from now on, at that level and above."""
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
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, mask_secrets, renderer]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_loggers(Lines(sys.stderr)),
        cache_logger_on_first_use=False,
    )
    # What libraries say through the standard library is written in the same form, and masked.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name, quiet_level in _QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)


class Lines:
    """Writes lines to a stream: those of one turn of the event loop together; without a loop each at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        atexit.register(self.flush)

    def write(self, line: str) -> None:
        """Take a line."""
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
        """Write what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._stream.write("\n".join(waiting) + "\n")
                self._stream.flush()


class _Logger:
    """What structlog hands a rendered event to."""

    def __init__(self, lines: Lines) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = self.log = lines.write


def _loggers(lines: Lines) -> Callable[..., _Logger]:
    return lambda *_: _Logger(lines)


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return _ENCODER.encode(event).decode()
    except UnicodeEncodeError:  # half of a surrogate pair: msgspec does not write it, json escapes it
        return json.dumps(event, default=str)


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask values under names that sound like a secret, and secrets spelled inside any text."""
    for name, value in event.items():
        event[name] = MASK if _sounds_secret(name) else _mask(value)
    return event


def masked_text(text: str) -> str:
    """Return the text with signing secrets, and what logs in within a url, masked."""
    if "whs" in text:
        text = _SIGNING_SECRET.sub(MASK, text)
    return _URL_PASSWORD.sub(MASK, text) if "://" in text else text


@lru_cache(maxsize=1_024)
def _sounds_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _mask(value: Any) -> Any:
    match value:
        case str():
            return masked_text(value)
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
