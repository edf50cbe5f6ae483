"""`hookseal top`: the status of the installation, again and again."""

import asyncio
import signal
import sys
from contextlib import suppress
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from hookseal.admin import Admin
from hookseal.admin.admin import for_command
from hookseal.cli.context import READS, call
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.runtime import run, start
from hookseal.cli.status import status_text
from hookseal.config.settings import Settings
from hookseal.errors import Unavailable, with_advice
from hookseal.ground.clock import Clock, SystemClock

_LINES: Final = 3  # fewer cannot show a reason and its command


def top(
    *,
    every: Annotated[float, typer.Option(min=0.5, max=3600, help="How many seconds lie between two looks.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Show what `hookseal status` shows, again and again, until Ctrl-C.

    Lines that do not fit are cut off. Without a terminal, and with --json, it prints once. If PostgreSQL does not
    answer, it says so and tries again.

    Example: hookseal top --every 5
    """
    settings = start(READS)
    if sys.stdout.isatty() and not as_json:
        run(_live(settings, every, SystemClock()))
        return
    found = call(settings, lambda admin: admin.status())
    if not as_json:
        note("standard output is no terminal: this is printed once")
    emit(found, as_json=as_json, text=lambda: status_text(found))


async def _live(settings: Settings, every: float, clock: Clock) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    console = Console(file=sys.stdout, highlight=False, markup=False)
    async with for_command(settings) as admin:
        first = await _text(admin, clock)  # what cannot begin fails before the screen changes
        with Live(_fitting(first, console), console=console, screen=True, auto_refresh=False) as live:
            live.refresh()
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), every)
                    return
                try:
                    text = await _text(admin, clock)
                except Unavailable as error:
                    text = f"{clock.now():%H:%M:%S}  {with_advice(error)}"
                live.update(_fitting(text, console), refresh=True)


async def _text(admin: Admin, clock: Clock) -> str:
    return f"{clock.now():%H:%M:%S}  {status_text(await admin.status())}"


def _fitting(text: str, console: Console) -> Text:
    lines = text.split("\n")[: max(console.height - 1, _LINES)]
    return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")
