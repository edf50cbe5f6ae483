"""A reader of docs/tutorial.md, who types each command of it into a terminal, with real servers and requests."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cli.terminals import Shell, shell, until

FIRST_WEBHOOK: Final = "3. Publish"  # the step that ends with a verified webhook, published in a transaction
_PAGE: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
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
# What each step must show, and in which terminal. Two spaces stand before `verified`, and not before `not verified`.
_SHOWN: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "1. Install": (),
    "2. Start everything": (("servers", r"^probes "),),
    "3. Publish": (("commands", r'"deliveries":1\}'), ("servers", r"^received .*  verified, ")),
    "4. Receive and verify": (("customer", r'^received .*"number":2\}'), ("commands", "Unauthorized")),
    "5. Retry and replay": (("commands", "hookseal delivery replay "), ("customer", r'^received .*"number":3\}')),
    "6. Rotate the secret": (("customer", r'^received .*"number":4\}'), ("commands", r"\bswitched\b")),
    "7. Several tenants": (
        ("servers", r"^received  /globex .*  verified, "),
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

    `replaced` are the ports and servers of this run, in place of those on the page. Unless it `installs`, as the page
    says, the programs are those of its environment.
    """

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str]
    opened: AsyncExitStack
    installs: bool = False
    preamble: str = ""
    terminals: dict[str, Shell] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    async def follow(self, last: str | None = None) -> None:
        """Do what the page says, to its end or to that of the step `last`; each step must show what it promises."""
        for heading, blocks in _steps():
            for block in blocks:
                await self._do(block)
            for terminal, pattern in _SHOWN[heading]:
                await self.terminals[terminal].shows(pattern)
            if heading == last:
                return
        assert last is None, f"the page has no step {last}"

    async def _do(self, block: re.Match[str]) -> None:
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
        if line.startswith("pip install ") and not self.installs:
            return
        typed = self._of_this_run(line)
        typed = f"{typed} --without-pip" if "-m venv" in typed and not self.installs else typed
        pattern = _REPEATED.get(line)
        shown = await (terminal.run(typed) if pattern is None else until(terminal, typed, pattern))
        for word, where in _WORDS.items():
            if found := re.search(where, shown, re.MULTILINE):
                self.words[word] = found[1]

    def _of_this_run(self, text: str) -> str:
        given = {**self.replaced, **self.words}
        return re.sub("|".join(map(re.escape, given)), lambda found: given[found[0]], text)


def _steps() -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Yield the heading and the blocks of each step."""
    _, *sections = _PAGE.read_text(encoding="utf-8").split("\n## ")
    for section in sections:
        blocks = list(_BLOCK.finditer(section))
        assert section.count("\n```") == 2 * len(blocks), "a block names no terminal and no file, so nobody runs it"
        yield section.partition("\n")[0], blocks
