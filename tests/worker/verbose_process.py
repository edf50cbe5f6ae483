"""A process that logs all it can: every logger at every level, unmasked, local variables, faults on demand.

What only the mask of the log would hide is shown as well: the mask is a second barrier that nothing may depend on.
Python imports this module at the start of a command with the variables of `verbose_settings`. The command is unchanged.
"""

import logging
import os
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from functools import partialmethod, wraps
from pathlib import Path
from typing import Any

from hookseal.dispatcher.store import endpoints
from hookseal.ground import log

ROOT = Path(__file__).parents[2]
IS_WORKER = "LOUD_WORKER"
IS_API = "LOUD_API"
COMPOSING = "/fault-while-composing"
WRITING = "/fault-while-writing"
READING = "/fault-while-reading"
INSERTING = "/fault-while-inserting"
ANSWERING = "/fault-while-answering"
_ASKED: ContextVar[str] = ContextVar("asked")  # the URL of the current request


def verbose_settings(folder: Path, *, worker: bool) -> dict[str, str]:
    """Return the variables that make a command log all; a worker also shows local variables in its tracebacks.

    A user of a worker may add a tool that does this; a command in a terminal has no such tool.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "from tests.worker.verbose_process import log_everything\n\nlog_everything()\n", encoding="utf-8"
    )
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "src"))),
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONFAULTHANDLER": "1",
        "HOOKSEAL_LOG_LEVEL": "debug",
        IS_WORKER: "1" if worker else "",
    }


def log_everything() -> None:
    """Make every logger of this process write at every level, and fail on the paths with a fault."""
    logging.Logger.isEnabledFor = lambda _self, _level: True  # type: ignore[method-assign, assignment]
    log.mask_secrets = lambda _logger, _method, event: event
    _fail(endpoints, "insert", INSERTING, lambda _connection, endpoint: endpoint.url)
    if os.environ.get(IS_WORKER):
        _show_locals_in_tracebacks()
    if os.environ.get(IS_API):
        _show_messages_of_errors()


def _show_locals_in_tracebacks() -> None:
    from hookseal.dispatcher.core import prepare  # noqa: PLC0415 -- most commands do not need it
    from hookseal.dispatcher.http import exchange, transport  # noqa: PLC0415 -- the same

    log.calls = lambda error: "".join(traceback.format_exception(error))
    with_locals: Any = partialmethod(traceback.TracebackException.__init__, capture_locals=True)
    traceback.TracebackException.__init__ = with_locals  # type: ignore[method-assign]
    _fail(prepare, "compose", COMPOSING, lambda _claim, target, *_: target.pointer.url)
    sending: Any = transport
    exchanged = sending.exchange

    async def record_url(connector: Any, url: str, sent: bytes, **named: Any) -> Any:
        _ASKED.set(url)
        return await exchanged(connector, url, sent, **named)

    sending.exchange = record_url
    _fail(exchange, "_write_and_read_head", WRITING, lambda *_: _ASKED.get())
    _fail(exchange, "read", READING, lambda *_, **__: _ASKED.get())


def _show_messages_of_errors() -> None:
    """Show whole tracebacks, but no local variables: those of a handler are the request, with its secrets."""
    from hookseal.api import application  # noqa: PLC0415 -- as above

    log.calls = lambda error: "".join(traceback.format_exception(error))
    _fail(application, "_key", ANSWERING, lambda request: request.headers.get("user-agent", ""))


def _fail(owner: Any, name: str, path: str, url_of: Callable[..., str]) -> None:
    """Make a function of the owner raise an error in every call for a URL with that path."""
    function = getattr(owner, name)

    @wraps(function)
    def failing(*arguments: Any, **named: Any) -> Any:
        if path in url_of(*arguments):
            raise RuntimeError("a fault of ours")
        return function(*arguments, **named)

    setattr(owner, name, failing)
