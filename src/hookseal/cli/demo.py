"""`hookseal demo`: the main job from end to end, checked by a receiver."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import typer

from hookseal.cli.shared.output import Json, emit, note, table
from hookseal.cli.shared.runtime import run
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock

if TYPE_CHECKING:  # it needs the extra `embedded`
    from hookseal.demo.script import Chapter, Result

COLUMNS: Final = ("tenant", "endpoint", "deliveries", "delivered", "verified", "refused")
_INDENT: Final = 13


def demo(*, as_json: Json = False) -> None:
    """Deliver 50 events on an embedded PostgreSQL and Valkey; exit 0 only if all are verified.

    Meanwhile it rotates and revokes a secret, retries, replays a dead letter, signs for x-webhook,
    writes an old row over a new one, and changes the master key. It exits with 0 only if each of these
    worked.

    It does not use DATABASE_URL and REDIS_URL. A real worker process signs and sends. A receiver on
    127.0.0.1 verifies each request with the public library `standardwebhooks`, and those of x-webhook
    with `hookseal.receiver`. Nothing stays on this machine.

    Example: hookseal demo
    """
    module = embedded_part("hookseal.demo.script")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
    show(run(_run_story(module.run_demo)), as_json=as_json)


def show(result: "Result", *, as_json: bool) -> None:
    """Print the result, and exit with 0 if everything in it worked, else with 1."""
    emit(_shape(result), as_json=as_json, text=lambda: _text(result))
    raise typer.Exit(0 if result.holds else 1)


async def _run_story(story: Callable[[Callable[[str], None], SystemClock], Awaitable["Result"]]) -> "Result":
    # SIGTERM and SIGHUP end it with the same cleaning up as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signal.raise_signal, signal.SIGINT)
    return await story(lambda line: note(f"{line} ...", prefix="  "), SystemClock())


def _shape(result: "Result") -> dict[str, object]:
    return {
        "ok": result.holds,
        "events": result.events,
        "seconds": round(result.seconds, 2),
        "endpoints": [asdict(line) for line in result.lines],
        "chapters": [
            {
                "name": chapter.name,
                "ok": chapter.holds,
                "detail": chapter.detail,
                "missing": chapter.missing,
                "seen": chapter.seen,
            }
            for chapter in result.chapters
        ],
    }


def _text(result: "Result") -> str:
    verdict = "all verified" if result.all_verified else "NOT all verified"
    passed = sum(chapter.holds for chapter in result.chapters)
    chapters = f"{passed} of {len(result.chapters)} chapters passed"
    return "\n".join(
        (
            "",
            table([asdict(line) for line in result.lines], COLUMNS),
            "",
            *(line for chapter in result.chapters for line in _chapter_lines(chapter)),
            "",
            f"{result.events} events, {verdict}, {chapters}, {result.seconds:.1f} s",
        )
    )


def _chapter_lines(chapter: "Chapter") -> list[str]:
    summary = chapter.detail if chapter.holds else f"MISSING: {'; '.join(chapter.missing)}"
    return [f"{chapter.name:<{_INDENT}}{summary}", *(" " * _INDENT + line for line in _attempts(chapter))]


def _attempts(chapter: "Chapter") -> Iterator[str]:
    attempts = chapter.seen.get("attempt_log", ())
    for attempt in attempts if isinstance(attempts, Sequence) else ():
        waited = "" if attempt["waited_seconds"] is None else f"waited {attempt['waited_seconds']:.2f} s"
        yield f"{attempt['number']}  {attempt['status'] or '-':<3}  {attempt['outcome']:<12}  {waited}".rstrip()


def embedded_part(name: str) -> Any:
    """Return a module that needs the extra `embedded`. Raises `Unavailable`, naming the extra, if it is absent."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hookseal"):
            raise
        raise Unavailable(f"{error.name} is not installed: from the checkout, pip install '.[embedded]'") from None
