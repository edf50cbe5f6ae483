"""Every command and every program of docs/tutorial.md, in its order, with real servers, processes and requests."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from hookseal.embedded.server import Server, ports, postgres_tree
from tests.cli.terminals import Shell, shell, until
from tests.fresh import fresh_postgres

PAGE: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
_BLOCK: Final = re.compile(r"^```\w+\n(?:#|--) (?P<title>[^\n]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_ID: Final = "[0-9a-f]{8}-[0-9a-f-]{27}"
_OPENED: Final = "each further terminal"
# What a later command is given in place of the word, and what shows it: the newest counts.
_WORDS: Final = {
    "127.0.0.1:PORT": r"--url http://(127\.0\.0\.1:\d+)/",
    "ENDPOINT_ID": rf"^endpoint +({_ID})",
    "DELIVERY_ID": rf"^ *({_ID})",
}
# A command that a reader repeats, and until what it shows.
_REPEATED: Final = {
    "hookseal delivery list --tenant acme --state dead_letter": "dead_letter",
    "hookseal delivery list --tenant acme": "delivered",
    "hookseal delivery show DELIVERY_ID": "delivered",
}
# What each step must show, and in which terminal.
_SHOWN: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "1. Install": (),
    "2. Start everything": (("servers", r"^probes "),),
    "3. Publish": (("commands", r'"deliveries":1\}'), ("servers", r"^received .* verified, ")),
    "4. Receive and verify": (("customer", r'^received .*"number":2\}'), ("commands", "Unauthorized")),
    "5. Retry and replay": (("commands", "hookseal delivery replay "), ("customer", r'^received .*"number":3\}')),
    "6. Rotate the secret": (("customer", r'^received .*"number":4\}'), ("commands", r"\bswitched\b")),
    "7. Several tenants": (
        ("servers", r"^received  /globex .* verified, "),
        ("customer", r'^received .*"number":6\}'),
        ("commands", "you have no such webhook"),
    ),
    "8. Your own PostgreSQL and Valkey": (("servers", "^ended; the data stays"), ("operator", "^CREATE ROLE")),
    "9. Deploy": (("operator", "delivered"), ("customer", r'^received .*"number":7\}')),
    "10. Watch": (("operator", "nobody must act"), ("operator", "^hookseal_attempts_total")),
    "11. Upgrade": (("worker", '"worker.stopped"'), ("customer", r'^received .*"number":8\}')),
    "About `hookseal up`": (),
}


@dataclass(slots=True)
class Reader:
    """Who follows the page in a folder: types each block into its terminal, or saves it as a file.

    `replaced` are the ports and servers of this run, in place of those on the page.
    """

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str]
    opened: AsyncExitStack
    preamble: str = ""
    terminals: dict[str, Shell] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    async def follow(self, block: re.Match[str]) -> None:
        """Do what one block of the page says."""
        kind, _, name = block["title"].partition(": ")
        if kind == _OPENED:
            self.preamble = block["text"]
        elif kind != "terminal":
            (self.folder / "shop" / kind).write_text(self._of_this_run(block["text"]), encoding="utf-8")
        elif block["text"] == "Ctrl-C\n":
            await self.terminals[name].interrupt()
        else:
            for line in block["text"].replace("\\\n    ", "").splitlines():
                await self._type(await self._terminal(name), line)

    async def _terminal(self, name: str) -> Shell:
        if name not in self.terminals:
            self.terminals[name] = await self.opened.enter_async_context(shell(self.folder, self.environment))
            for line in self.preamble.splitlines():
                await self.terminals[name].run(line)
        return self.terminals[name]

    async def _type(self, terminal: Shell, line: str) -> None:
        if line.startswith("pip install "):
            return  # tests/install installs; the programs are those of the environment of the tests
        typed = self._of_this_run(line)
        typed = f"{typed} --without-pip" if "-m venv" in typed else typed
        pattern = _REPEATED.get(line)
        shown = await (terminal.run(typed) if pattern is None else until(terminal, typed, pattern))
        for word, where in _WORDS.items():
            if found := re.search(where, shown, re.MULTILINE):
                self.words[word] = found[1]

    def _of_this_run(self, text: str) -> str:
        given = {**self.replaced, **self.words}
        return re.sub("|".join(map(re.escape, given)), lambda found: given[found[0]], text)


def steps() -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Yield the heading and the blocks of each step."""
    _, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    for section in sections:
        blocks = list(_BLOCK.finditer(section))
        assert section.count("\n```") == 2 * len(blocks), "a block names no terminal and no file, so nobody runs it"
        yield section.partition("\n")[0], blocks


@pytest.mark.req("UX-04", part="tutorial")
@pytest.mark.timeout(900)
async def test_the_tutorial_runs_as_written(servers_folder: Path, own_valkey: Server) -> None:
    """From an empty folder to an upgraded installation, each step shows what the page says."""
    async with fresh_postgres(migrated=False) as postgres, AsyncExitStack() as opened:
        reader = Reader(servers_folder, environment(servers_folder), replacements(postgres, own_valkey), opened)
        for heading, blocks in steps():
            for block in blocks:
                await reader.follow(block)
            for terminal, pattern in _SHOWN[heading]:
                await reader.terminals[terminal].shows(pattern)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a terminal without settings: the programs of these tests, and those of PostgreSQL."""
    programs = f"{Path(sys.executable).parent}:{postgres_tree() / 'bin'}:{os.environ['PATH']}"
    return {"PATH": programs, "HOME": str(folder), "TMPDIR": str(folder), "COLUMNS": "100"}


def replacements(postgres: Server, valkey: Server) -> dict[str, str]:
    """Return what stands on the page, and what this run has in its place: ports that are free, and its own servers."""
    free = ports(None)
    database = urlsplit(postgres.url)
    return {
        "postgres:PASSWORD@127.0.0.1:5432/shop": postgres.url.partition("://")[2],
        "127.0.0.1:5432/shop": f"{database.hostname}:{database.port}{database.path}",
        "redis://127.0.0.1:6379/0": valkey.url,
        **{port: str(next(free)) for port in ("8000", "8001", "8080")},
    }
