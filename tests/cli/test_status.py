"""`hookseal status` and `hookseal top`: what an operator asks first, as JSON, as text, and live on a terminal."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from hookseal.cli.shared.moments import age
from tests import forked, rows
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-15", part="status")


@pytest.mark.req("OPS-04", part="json")
async def test_a_refused_secret_needs_a_person(begun: Begun) -> None:
    """The object has the documented fields; the text has them, too. Exit 1, and 0 if nobody must act."""
    pool = begun.stored.pool
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await rows.worker(
        pool, requests=3, most_requests=10, bytes=0, most_bytes=33_554_432, connections=7, most_connections=7
    )
    await rows.change(pool, "control", "outbox", holder="w-1", until=rows.ahead(hours=1))
    fine = await begun.run("status", "--json")
    assert (0, []) == (fine.code, fine.json["must_act"])
    assert "nobody must act" == (await begun.run("status")).out.splitlines()[0]

    await rows.hold(pool, endpoint, since=rows.ago(minutes=5), reason="it does not open")
    await rows.change(pool, "endpoints", endpoint, name="a\x1b[2Jb")
    delivery = await rows.delivery(pool, endpoint)
    await rows.wait_for(pool, "secret", delivery, held_at=rows.ago(minutes=3))
    await rows.attempt(pool, delivery, outcome="server_error", status=503)
    job = await _replay(begun, endpoint)
    found = await begun.run("status", "--json")
    shape = documented("status")
    assert (1, [*shape]) == (found.code, [*found.json])
    for name in ("must_act", "tenants", "endpoints", "workers", "replays"):
        assert [[*shape[name][0]]] == [[*each] for each in found.json[name]], name
    for name in ("overview", "other_tenants", "first_attempts"):
        assert [*shape[name]] == [*found.json[name]], name
    assert ["hookseal endpoint list --state held"] == [each["command"] for each in found.json["must_act"]]
    assert ("w-1", ["connections"], 1) == (
        found.json["leader"], found.json["workers"][0]["limited_by"], found.json["secrets_refused"],
    )  # fmt: skip

    text = (await begun.run("status")).out
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert [["a person must act"], ["the secret of 1 endpoint is refused"]] == lines[:2]
    assert ["waiting for", "deliveries", "oldest"] in lines
    ages = [line[-1] for line in lines if line[:2] == ["secret", "1"] or line[:4] == ["acme", "1", "0", "1"]]
    assert [True, True] == [each.startswith("3m ") for each in ages]
    [shown] = [line for line in lines if endpoint in line]
    assert ["acme", endpoint, "a\\x1b[2Jb", "held (secret)"] == shown[:4]
    assert ["503 server_error", "1"] == shown[5:7]
    assert ["w-1", "1", "3 of 10", "0 of 33", "7 of 7", "connections"] in lines
    assert job in text


async def test_what_cannot_be_read_is_no_answer(begun: Begun) -> None:
    unreachable = await begun.run("status", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert 69 == unreachable.code


async def test_an_age_has_two_units() -> None:
    assert [None, "0s", "59s", "5m 12s", "3h 0m", "2d 4h"] == [
        age(seconds) for seconds in (None, 0.9, 59.9, 312, 3 * 3600 + 59, 2 * 86_400 + 4 * 3_600 + 3_599)
    ]


async def test_without_a_terminal_top_prints_once(begun: Begun) -> None:
    once = await begun.run("top")
    assert (0, "hookseal: standard output is no terminal: this is printed once\n") == (once.code, once.err)
    assert "a person must act\n" in once.out or "nobody must act\n" in once.out
    json = await begun.run("top", "--json")
    assert (0, "", [*documented("status")]) == (json.code, json.err, [*json.json])


@pytest.mark.parametrize("columns", [20, 200])
async def test_top_follows_the_installation(begun: Begun, columns: int) -> None:
    """On a terminal of any width it shows a change at its next look, also after its connection was lost.

    Ctrl-C ends it with 0.
    """
    await begun.stored.endpoint()
    await rows.worker(begun.stored.pool)
    async with _top(begun, columns) as terminal:
        await terminal.shows("nobody must act"[: columns - 12])
        [endpoint] = [row["id"] for row in await begun.stored.pool.fetch("SELECT id::text FROM hookseal.endpoints")]
        await rows.hold(begun.stored.pool, endpoint)
        await terminal.shows("a person must act"[: columns - 12])
        ended = await begun.stored.pool.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'hookseal'"
        )
        assert 1 == ended
        await rows.remove(begun.stored.pool, "held_endpoints", where="true")
        await terminal.shows("nobody must act"[: columns - 12])
        assert max(len(line) for line in terminal.lines()) <= columns
        terminal.process.send_signal(signal.SIGINT)
        assert 0 == await terminal.process.wait()


class _Terminal:
    def __init__(self, process: asyncio.subprocess.Process, ours: int) -> None:
        self.process = process
        self.seen = ""
        self._ours = ours
        os.set_blocking(ours, False)

    async def shows(self, text: str) -> None:
        """Return when the newest screen has the text."""

        def look() -> bool:
            with suppress(OSError):
                self.seen += os.read(self._ours, 65_536).decode(errors="replace")
            return text in self.seen.rpartition("\x1b[H")[2]

        await eventually(look)

    def lines(self) -> list[str]:
        """Return the lines of all screens, without what steers the terminal."""
        screens = self.seen.replace("\x1b[H", "\n")
        # What was read last may end within an order to the terminal.
        return [line for line in re.sub(r"\x1b(?:$|\[[0-9;?]*(?:$|[A-Za-z]))", "", screens).splitlines() if line]


@asynccontextmanager
async def _top(begun: Begun, columns: int) -> AsyncIterator[_Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    settings = environment | begun.settings | {"TERM": "xterm"}
    process = await forked.start("top", "--every", "0.5", env=settings, stdout=theirs)
    os.close(theirs)
    try:
        yield _Terminal(process, ours)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def _replay(begun: Begun, endpoint: str) -> str:
    """Start a replay job, which no worker runs, and return its id."""
    await rows.delivery(begun.stored.pool, endpoint, state="failed")
    started = await begun.run("replay", "start", "--tenant", "acme", "--json")
    assert 0 == started.code, started.out
    job: str = started.json["replay_id"]
    return job
