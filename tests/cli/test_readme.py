"""The commands and the code of the README, run as written against `hookseal up`."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from hookseal import Publisher
from tests.cli.command import DEADLINE_SECONDS
from tests.cli.test_up import Terminal, delivered, finished

README: Final = Path(__file__).parents[2] / "README.md"
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documented(heading: str, language: str) -> list[str]:
    """Return the code blocks of that language under this heading, in order; fail if there are none."""
    [section] = [part for part in README.read_text(encoding="utf-8").split("\n## ") if part.startswith(f"{heading}\n")]
    found = [text for kind, text in _BLOCK.findall(section) if kind == language]
    assert found, f"no {language} under {heading}"
    return found


@pytest.fixture
def terminal(servers_folder: Path) -> Terminal:
    """Return a terminal in a new folder."""
    return Terminal(servers_folder)


@asynccontextmanager
async def shown_up(terminal: Terminal) -> AsyncIterator[list[str]]:
    """Run `hookseal up` for the length of the block, and yield the commands that it prints for a second terminal."""
    process = await terminal.start("up")
    assert process.stdout is not None
    printed: list[str] = []
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not printed or not printed[-1].startswith("logs "):
                printed.append((await process.stdout.readline()).decode())
                assert printed[-1], await process.communicate()
        yield [line.strip() for line in printed if line.startswith("  ")]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.req("UX-04", part="readme")
async def test_the_readme_runs_as_written(terminal: Terminal) -> None:
    """The commands of the first five minutes are those that `up` prints, and run as printed; so does the first code.

    The printed lines work in a second terminal without an active virtual environment.
    """
    start, written, over_http = documented("Five minutes with `hookseal up`", "sh")
    assert ".venv/bin/hookseal up\n" == start
    of_path, *commands, show, why = written.splitlines()

    async with shown_up(terminal) as printed:
        receiver = re.findall(r"http://127\.0\.0\.1:\d+/", "".join(printed))[0]
        api, token = re.findall(r"Bearer (\S+)'.* (http://[^/]+)/api", "".join(printed))[0][::-1]
        assert of_path.startswith("export PATH=")
        *ours, endpoint, message = printed[1:]
        assert [line.replace("http://127.0.0.1:PORT/", receiver) for line in commands] == ours
        posted = over_http.replace("http://127.0.0.1:PORT/", receiver).replace("http://127.0.0.1:API_PORT", api)
        assert [line.replace("TOKEN", token) for line in posted.splitlines()] == [endpoint, message]
        copied = await finished(await bare_shell(terminal, "\n".join(printed)))
        assert 0 == copied.code, copied
        [number] = re.findall(r"^([0-9a-f-]{36})\b", copied.out, re.MULTILINE)
        assert ("hookseal delivery show ID", "hookseal delivery why ID") == (show, why)
        await require_delivery_over_http(terminal, copied.out)
        shown = await delivered(terminal, number)
        assert [204] == [attempt["status"] for attempt in shown["attempt_log"]]
        assert "delivered" == (await terminal.run_on_stack("delivery", "why", number))["state"]
        await require_the_first_code(terminal)


async def require_delivery_over_http(terminal: Terminal, answers: str) -> None:
    """Fail unless these are the answers of the API to both commands, and the message reached the endpoint."""
    added, sent = (json.loads(answer) for answer in re.findall(r'\{"id":.*?\}(?=\{"id"|\n|$)', answers))
    listed = await terminal.run_on_stack("delivery", "list", "--tenant", "globex", "--event-id", sent["id"])
    [delivery] = listed["items"]
    assert added["id"] == delivery["endpoint_id"]
    assert [204] == [
        attempt["status"] for attempt in (await delivered(terminal, delivery["delivery_id"]))["attempt_log"]
    ]


async def bare_shell(terminal: Terminal, commands: str) -> Process:
    """Run these commands in a shell without settings."""
    return await asyncio.create_subprocess_exec(
        *("env", "-i", "PATH=/usr/bin:/bin", "sh", "-e", "-c", commands),
        cwd=terminal.folder,
        stdout=PIPE,
        stderr=PIPE,
    )


async def require_the_first_code(terminal: Terminal) -> None:
    """Fail unless the code of the README stores the change and the event together, and the event is delivered."""
    [program] = [text for kind, text in _BLOCK.findall(README.read_text(encoding="utf-8")) if kind == "python"]
    names: dict[str, Any] = {}
    exec(compile(program, str(README), "exec"), names)  # noqa: S102 -- it is our own page
    settings = (await terminal.hookseal("up", "env", "--json")).json
    async with (
        asyncpg.create_pool(settings["DATABASE_URL"], min_size=1) as pool,
        Publisher.connect(settings["DATABASE_URL"], settings["REDIS_URL"]) as publisher,
    ):
        await pool.execute("CREATE TABLE invoices (number integer PRIMARY KEY, paid boolean NOT NULL)")
        await pool.execute("INSERT INTO invoices VALUES (7, false)")
        await names["pay"](pool, publisher, 7)
        assert await pool.fetchval("SELECT paid FROM invoices WHERE number = 7")
    listed = await terminal.run_on_stack("delivery", "list", "--tenant", "acme", "--event-id", "invoice-7-paid")
    [delivery] = listed["items"]
    shown = await delivered(terminal, delivery["delivery_id"])
    assert [204] == [attempt["status"] for attempt in shown["attempt_log"]]


@pytest.mark.req("UX-04", part="readme")
def test_the_readme_is_short_and_has_code_before_figures() -> None:
    """It has at most 150 lines, its first code before its first figure of speed, and one link for the figures."""
    text = README.read_text(encoding="utf-8")
    assert 150 >= text.count("\n")
    assert text.index("```python") < text.index("](docs/images/way.svg)") < text.index(" deliveries a second")
    assert 1 == text.count("](docs/proof/performance.md)")
