"""The commands and the application of the README, run as written against `hookseal up`."""

import asyncio
import json
import os
import re
import shlex
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from hookseal.embedded.server import ports
from tests.cli.command import DEADLINE_SECONDS
from tests.cli.test_up import Terminal, delivered, finished

README: Final = Path(__file__).parents[2] / "README.md"
FASTAPI: Final = "A FastAPI application"
POINTED: Final = 'eval "$(hookseal up env)"\n'
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


async def shell(terminal: Terminal, commands: str) -> Process:
    """Run these commands in a shell that has only a PATH, with the environment of the checkout, and a HOME."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-e", "-c", commands),
        cwd=terminal.folder,
        env={"PATH": path, "HOME": str(terminal.temporary)},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )


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


async def test_the_readme_runs_as_written(terminal: Terminal) -> None:
    """The commands of the first five minutes are those that `up` prints, and run as printed; so does the application.

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
        await require_fastapi(terminal)


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


@asynccontextmanager
async def serving(terminal: Terminal, command: str) -> AsyncIterator[None]:
    """Run the server that the command starts, and continue once it accepts requests."""
    process = await shell(terminal, f"{POINTED}exec {command}")
    assert process.stderr is not None
    output = b""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while b"Uvicorn running on" not in output:
                output += (line := await process.stderr.readline())
                assert line, output.decode()
        yield
    finally:
        process.terminate()
        await process.communicate()


async def require_fastapi(terminal: Terminal) -> None:
    """Fail unless the application publishes in its own transaction, stores verified requests, and refuses others."""
    [program], [prepare, pay] = documented(FASTAPI, "python"), documented(FASTAPI, "sh")
    install, add, serve = prepare.splitlines()
    assert "pip install fastapi uvicorn" == install
    here = f"127.0.0.1:{next(ports(None))}"
    (terminal.folder / "app.py").write_text(program, encoding="utf-8")

    added = add.replace("127.0.0.1:8000", here).removeprefix("hookseal ")
    endpoint = (await terminal.run_on_stack(*shlex.split(added)))["endpoint_id"]
    serve = serve.replace("8000", here.partition(":")[2])
    async with serving(terminal, serve), aiohttp.ClientSession() as session:
        *_, url = shlex.split(pay.replace("127.0.0.1:8000", here))
        first, again = await _post(session, url), await _post(session, url)
        assert (200, 2) == (first[0], first[1]["deliveries"])  # the endpoint of the five minutes gets it, too
        assert 500 == again[0]  # the invoice exists already: neither it nor another event is stored
        listed = await terminal.run_on_stack("delivery", "list", "--tenant", "acme", "--endpoint", endpoint)
        [delivery] = listed["items"]
        shown = await delivered(terminal, delivery["delivery_id"])
        forged = await _post(session, f"http://{here}/hooks", **_forged(delivery["delivery_id"]))
        assert 401 == forged[0]
    stored = await _received((await terminal.hookseal("up", "env", "--json")).json["DATABASE_URL"])

    assert [200] == [attempt["status"] for attempt in shown["attempt_log"]]
    assert [delivery["delivery_id"]] == stored


async def _post(session: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.post(url, headers=names) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else await response.text()


async def _received(database_url: str) -> list[str]:
    """Return the ids of the deliveries that the application stored."""
    connection = await asyncpg.connect(database_url)
    try:
        return [row["webhook_id"] for row in await connection.fetch("SELECT webhook_id FROM received")]
    finally:
        await connection.close()


def _forged(delivery: str) -> dict[str, str]:
    return {"webhook_id": delivery, "webhook_timestamp": str(int(time.time())), "webhook_signature": "v1,AAAA"}
