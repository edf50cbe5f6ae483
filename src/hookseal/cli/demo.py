"""`hookseal demo`: the main job from end to end, checked by a receiver."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

import typer

from hookseal.cli.output import Json, emit, table
from hookseal.cli.runtime import run
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import Unavailable

COLUMNS = ("tenant", "endpoint", "deliveries", "delivered", "verified", "refused")


def demo(*, as_json: Json = False) -> None:
    """Deliver 50 events on an embedded PostgreSQL and Valkey; exit 0 only if all verified.

    DATABASE_URL and REDIS_URL are not looked at. A real worker process signs and sends; a receiver on
    127.0.0.1 verifies each request with the public `standardwebhooks` library. Nothing stays.
    """
    story = embedded_part("hookseal.demo.story")
    result = run(_told(story.tell))
    lines = [asdict(line) for line in result.lines]
    verdict = "all verified" if result.holds else "NOT all verified"
    emit(
        {"ok": result.holds, "events": result.events, "seconds": round(result.seconds, 2), "endpoints": lines},
        as_json=as_json,
        text=lambda: f"\n{table(lines, COLUMNS)}\n\n{result.events} events, {verdict}, {result.seconds:.1f} s",
    )
    raise typer.Exit(0 if result.holds else 1)


async def _told(tell: Callable[[Callable[[str], None], SystemClock], Awaitable[Any]]) -> Any:
    # Every signal that asks it to end is one that cleans up, as Ctrl-C is.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signal.raise_signal, signal.SIGINT)
    return await tell(lambda line: print(f"  {line} ...", file=sys.stderr, flush=True), SystemClock())


def embedded_part(name: str) -> Any:
    """Return a module that needs the extra `embedded`. Raises `Unavailable`, naming the extra, if it is absent."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hookseal"):
            raise
        raise Unavailable(f"{error.name} is not installed: install hookseal[embedded]") from None
