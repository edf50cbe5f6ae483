"""`hookseal demo` verifies every chapter in a real process, and leaves no process and no file."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
import typer

from hookseal.cli.demo import show
from hookseal.demo.script import Chapter, Line, Result
from tests import forked
from tests.cli.command import DEADLINE_SECONDS, Ended, hookseal, python
from tests.cli.process_leaks import files_in, processes_in

NAMES = ["rotation", "retries", "dead letter", "x-webhook", "stale row", "master key"]
_OF_A_CHAPTER = ("name", "detail", "seen", "missing")
_WITHOUT = """
import sys
sys.modules["standardwebhooks"] = None
from hookseal.cli.main import main
main()
"""


async def demo(folder: Path, *options: str, **settings: str) -> Ended:
    """Run the demo to its end in this folder, which is also its temporary folder."""
    process = await forked.start(
        *("demo", *options),
        env={**os.environ, **settings, "TMPDIR": str(folder)},
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


@pytest.mark.req("OPS-08")
@pytest.mark.req("OPS-04", part="json")
async def test_every_chapter_is_verified_and_nothing_is_left(
    servers_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every chapter is verified, settings in the environment are ignored, and nothing is left.

    The text has each step, a table and the result of each chapter, in lines of at most 80 columns.
    """
    settings = {
        "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:1/db",
        "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "SECRETS_PROVIDER": "nonsense",
        "HOOKSEAL_NONSENSE": "1",
    }
    ended = await demo(servers_folder, "--json", **settings)
    assert 0 == ended.code, ended.err
    result = ended.json
    assert {"ok", "events", "seconds", "endpoints", "chapters"} == result.keys()
    assert (True, 50) == (result["ok"], result["events"])
    assert 0 < result["seconds"] < DEADLINE_SECONDS
    counts = {line["endpoint"]: line.pop("deliveries") for line in result["endpoints"]}
    assert {"/acme/invoices": 17, "/acme/everything": 33, "/globex/everything": 17} == counts
    assert [
        {
            "tenant": endpoint.split("/")[1],
            "endpoint": endpoint,
            "delivered": count,
            "verified": count,
            "refused": 0,
        }
        for endpoint, count in counts.items()
    ] == result["endpoints"]
    require_chapters(result["chapters"])
    assert "hunter2" not in ended.err
    assert [] == files_in(servers_folder)
    assert [] == processes_in(servers_folder)
    steps = ended.err.splitlines()
    assert steps
    assert all(line.endswith(" ...") and len(line) <= 80 for line in steps)
    require_text(result, counts, capsys)


def require_chapters(chapters: list[dict[str, Any]]) -> None:
    """Require that every chapter was verified, and that its facts agree."""
    assert ["rotation", "retries", "dead letter", "x-webhook", "stale row", "master key"] == [
        chapter["name"] for chapter in chapters
    ]
    assert all({"name", "ok", "detail", "missing", "seen"} == chapter.keys() for chapter in chapters)
    assert [(True, [])] * 6 == [(chapter["ok"], chapter["missing"]) for chapter in chapters]
    rotated, retried, replayed, x_signed, stale, changed = (chapter["seen"] for chapter in chapters)
    assert 20 <= min(rotated["old"], rotated["both"], rotated["new"], rotated["after"])
    assert (0, 0, 0) == (rotated["other"], rotated["refused"], rotated["older_after"])
    assert rotated["deliveries"] == rotated["delivered"] == rotated["old"] + rotated["both"] + rotated["new"]
    assert [(1, 500, "server_error"), (2, 503, "throttled"), (3, 204, "delivered")] == tried(retried)
    assert 2 <= retried["attempt_log"][2]["waited_seconds"]
    assert ("dead_letter", "delivered") == (replayed["before_replay"], replayed["after_replay"])
    assert [(1, 500, "server_error"), (2, 500, "server_error"), (3, 204, "delivered")] == tried(replayed)
    assert {"deliveries": 5, "delivered": 5, "verified": 5, "refused": 0} == x_signed
    assert {"waited_for": "secret", "arrived_before": 0, "accepted": 1, "verified": 1, "refused": 0} == stale
    assert 10 <= min(changed["meanwhile"], changed["after"], changed["moved"])
    assert (0, 0, "retired") == (changed["left"], changed["refused"], changed["old_key"])
    assert changed["deliveries"] == changed["delivered"] == changed["verified"]


def tried(seen: dict[str, Any]) -> list[tuple[int, int, str]]:
    """Return number, status and outcome of each attempt."""
    return [(attempt["number"], attempt["status"], attempt["outcome"]) for attempt in seen["attempt_log"]]


def require_text(printed: dict[str, Any], counts: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    """Require that the text of the printed result has a table, and the result and the steps of each chapter."""
    endpoints = tuple(Line(**line, deliveries=counts[line["endpoint"]]) for line in printed["endpoints"])
    chapters = tuple(Chapter(**{name: chapter[name] for name in _OF_A_CHAPTER}) for chapter in printed["chapters"])
    result = Result(events=printed["events"], lines=endpoints, chapters=chapters, seconds=printed["seconds"])
    with pytest.raises(typer.Exit) as ended:
        show(result, as_json=False)
    assert 0 == ended.value.exit_code
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert ["tenant", "endpoint", "deliveries", "delivered", "verified", "refused"] == lines[1].split()
    assert lines[-1].startswith("50 events, all verified, 6 of 6 chapters passed, ")
    assert NAMES == [line.split("  ")[0] for line in lines if line[:1].strip()][4:-1]
    assert 2 == sum(line.split() == ["1", "500", "server_error"] for line in lines)
    assert 2 == sum(line.split()[:4] == ["3", "204", "delivered", "waited"] for line in lines)


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("verified", "missing", "code"), [(3, (), 0), (2, (), 1), (3, ("the replay", "the delivery"), 1)]
)
def test_a_missing_verification_exits_1(
    verified: int, missing: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a delivery or a chapter is not verified, it exits 1 and says what is missing."""
    line = Line(tenant="acme", endpoint="/acme/x", deliveries=3, delivered=3, verified=verified, refused=0)
    held = Chapter(name="retries", detail="delivered at attempt 3", seen={}, missing=())
    broken = Chapter(name="dead letter", detail="dead_letter", seen={"delivery_ids": 1}, missing=missing)
    result = Result(events=3, lines=(line,), chapters=(held, broken), seconds=1.5)

    with pytest.raises(typer.Exit) as ended:
        show(result, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (code, code == 0) == (ended.value.exit_code, printed["ok"])
    assert {
        "name": "dead letter",
        "ok": not missing,
        "detail": "dead_letter",
        "missing": list(missing),
        "seen": {"delivery_ids": 1},
    } == printed["chapters"][1]

    with pytest.raises(typer.Exit) as ended:
        show(result, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert code == ended.value.exit_code
    assert "retries      delivered at attempt 3" in lines
    assert ("dead letter  MISSING: the replay; the delivery" in lines) == bool(missing)
    verdict = "all verified" if verified == 3 else "NOT all verified"
    assert f"3 events, {verdict}, {1 if missing else 2} of 2 chapters passed, 1.5 s" == lines[-1]


async def interrupted(folder: Path, number: signal.Signals, step: bytes) -> int | None:
    """Run the demo until it prints that step, send it a signal, and return its exit code."""
    process = await forked.start(
        "demo",
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stderr is not None
    while step not in (line := await process.stderr.readline()):
        assert line.startswith(b"  "), line
    process.send_signal(number)
    await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return process.returncode


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, b"starting a worker"), (signal.SIGTERM, b"migrating")])
async def test_a_signal_ends_it_and_nothing_is_left(number: signal.Signals, step: bytes, servers_folder: Path) -> None:
    """SIGINT or SIGTERM in the middle ends it with 130, and nothing is left."""
    assert 130 == await interrupted(servers_folder, number, step)
    assert [] == files_in(servers_folder)
    assert [] == processes_in(servers_folder)


async def test_the_missing_extra_is_named() -> None:
    """Without the extra `embedded` the error names the extra."""
    ended = await python("-c", _WITHOUT, "demo")
    expected = "hookseal: standardwebhooks is not installed: from the checkout, pip install '.[embedded]'\n"
    assert (69, expected) == (ended.code, ended.err)


async def test_help_says_what_is_verified() -> None:
    """The help says what is verified and how, and that nothing is left."""
    out = " ".join((await hookseal("demo", "--help")).out.split())
    assert all(words in out for words in ("exit 0 only if all are verified", "standardwebhooks", "Nothing stays"))
