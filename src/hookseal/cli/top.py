"""`hookseal top`: the status of the installation, again and again."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from hookseal.admin import Admin
from hookseal.admin.admin import for_command
from hookseal.cli.context import READS, call
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.printing import laid_out
from hookseal.cli.shared.runtime import run, start
from hookseal.cli.status import Section, sections, status_text
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

    What a person must do comes first. Of each table as many entries are shown as have room, those first that matter
    most. Without a terminal, and with --json, it prints once. If PostgreSQL does not answer, it says so and tries
    again.

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
        first = await _looked(admin, clock)  # what cannot begin fails before the screen changes
        with Live(_screen(first, console), console=console, screen=True, auto_refresh=False) as live:
            live.refresh()
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), every)
                    return
                try:
                    parts = await _looked(admin, clock)
                except Unavailable as error:
                    parts = [Section([with_advice(error), f"{clock.now():%H:%M:%S}"])]
                live.update(_screen(parts, console), refresh=True)


async def _looked(admin: Admin, clock: Clock) -> list[Section]:
    first, *others = sections(await admin.status())
    verdict, *lines = first.head
    return [replace(first, head=[f"{verdict}  {clock.now():%H:%M:%S}", *lines]), *others]


def _screen(parts: Sequence[Section], console: Console) -> Text:
    lines = fitted(parts, width=console.width, height=max(console.height - 1, _LINES))
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def fitted(parts: Sequence[Section], *, width: int, height: int) -> list[str]:
    """Return at most `height` lines of at most `width` columns, without an empty one.

    The first part is whole, as far as it fits. Then each of the others gets one entry after the other, in turns, while
    an entry fits; the last one gets what they leave. A part that is cut says how much of it is shown. No word or number
    is broken that fits into a line.
    """
    console = Console(width=width, file=sys.stderr)

    def wrapped(lines: Sequence[str]) -> list[str]:
        parts = [part for line in lines for part in laid_out(line, width)]
        return [each.plain.rstrip() for part in parts for each in Text(part).wrap(console, width, overflow="fold")]

    def head(part: Section, number: int) -> list[str]:
        return wrapped([*part.head[:-1], f"{part.head[-1]} ({number} of {len(part.entries)})"])

    first, *others = parts
    lines = wrapped(first.head)[:height]
    entries, room = [[wrapped(entry) for entry in part.entries] for part in others], height - len(lines)
    shown = [0] * len(others)
    for turns in (range(len(others) - 1), range(len(others) - 1, len(others))):
        waiting = [*turns]
        while waiting:
            for index in [*waiting]:
                number = shown[index]
                if number == len(entries[index]):
                    waiting.remove(index)
                    continue
                cost = len(entries[index][number]) + (0 if number else len(head(others[index], len(entries[index]))))
                if cost > room:
                    waiting.remove(index)
                    continue
                shown[index], room = number + 1, room - cost
    for part, blocks, number in zip(others, entries, shown, strict=True):
        if number:
            lines += wrapped(part.head) if number == len(blocks) else head(part, number)
            lines += [line for block in blocks[:number] for line in block]
    return lines
