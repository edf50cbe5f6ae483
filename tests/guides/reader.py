"""A reader of a page, who copies its commands one after the other and replaces the names in capitals."""

import asyncio
import re
import shlex
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cli.command import DEADLINE_SECONDS, Ended
from tests.cli.shell import Shell

ROOT: Final = Path(__file__).parents[2]
Step = Callable[[], Awaitable[object]]
_FENCED: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INDENTED: Final = re.compile(r"^\n((?: {4,}\S.*\n)+)", re.MULTILINE)
_COMMENT: Final = re.compile(r"(?:^| {2,})#(?: .*)?$|^#.*$")
# What needs an index of packages, or a `hookseal up` beside it, which tests/cli/test_readme.py runs.
_LEFT_OUT: Final = ("pip install", "python3 -m venv", 'eval "$(hookseal up env)"')
_SERVES: Final = re.compile(r"hookseal (?:worker|api|listen)\b|python receiver\.py")
_SETS: Final = ("export ", "unset ")


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page: the heading that it stands under, and its text on one line, without a comment."""

    heading: str
    text: str


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page in that language, in order."""
    return [code for _, kind, code in _FENCED.findall(_text(page)) if kind == language]


def commands(page: str) -> list[Command]:
    """Return every command that a page shows in a block for a shell, in order."""
    return [
        Command(heading, line)
        for heading, section in _sections(_text(page))
        for block in _shell_blocks(section)
        for line in _lines(block)
    ]


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield each section with its heading; a comment of a block is no heading."""
    heading, begin = "", 0
    fences = [each.span() for each in _FENCED.finditer(text)]
    for found in re.finditer(r"^#+ (.+)$", text, re.MULTILINE):
        if any(start <= found.start() < end for start, end in fences):
            continue
        yield heading, text[begin : found.start()]
        heading, begin = found[1], found.end()
    yield heading, text[begin:]


def _shell_blocks(section: str) -> Iterator[str]:
    """Yield fenced blocks for a shell, and indented ones that have a command of hookseal."""
    yield from (code for _, kind, code in _FENCED.findall(section) if kind in {"", "sh", "console"})
    for code in _INDENTED.findall(_FENCED.sub("", section)):
        if re.search(r"^ *(?:[A-Z_]+=\S+ )*hookseal ", code, re.MULTILINE):
            yield code


def _lines(block: str) -> Iterator[str]:
    """Yield the commands of a block: continued lines are one, and a text in quotes may have several lines."""
    whole = ""
    for line in block.replace("\\\n", " ").splitlines():
        whole = f"{whole}\n{line}" if whole else _COMMENT.sub("", line).strip().removeprefix("$ ")
        if whole.count("'") % 2:
            continue
        if whole:
            yield re.sub(r" {2,}", " ", whole)
        whole = ""


@dataclass(slots=True, kw_only=True)
class Reader:
    """Runs the commands of pages in one shell, and keeps what they set.

    `names` replaces words of the page, or is called for the word when it is met. `settled` is awaited after each
    command. `codes` has the exit codes that are right for commands that begin so, beside 0.
    """

    shell: Shell
    names: Mapping[str, str | Callable[[], str]] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    settled: Step | None = None
    _is_private: bool = False
    _servers: list[tuple[Process, int]] = field(default_factory=list)  # with the code with which it must end

    async def follow(self, page: str, *, before: Mapping[str, Step] | None = None) -> list[Ended]:
        """Run every command of the page; each must end well. `before` has a step to take before a heading's first."""
        steps, ended = dict(before or {}), []
        try:
            for command in commands(page):
                if command.text.startswith(_LEFT_OUT):
                    continue
                if (step := steps.pop(command.heading, None)) is not None:
                    await step()
                ended.append(await self._run(command.text))
        finally:
            codes = [await _ended(server) for server, _ in self._servers]
        assert {} == steps, "no command stands under these headings"
        assert [code for _, code in self._servers] == codes
        return ended

    async def _run(self, written: str) -> Ended:
        text = written
        for name, value in self.names.items():
            before, *others = re.split(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
            if others:
                text = (value if isinstance(value, str) else value()).join([before, *others])
        if text == "umask 077":
            self._is_private = True
            return Ended(code=0, out="", err="")
        if text.startswith(_SETS):
            return await self._set(text)
        if _SERVES.match(text):
            return await self._serve(text)
        if self._is_private and not text.startswith("hookseal "):
            text = f"umask 077; {text}"
        ended = await self.shell.run(text)
        right = {0} | {code for begin, code in self.codes.items() if written.startswith(begin)}
        assert ended.code in right, f"{text}: {ended}"
        if self.settled is not None:
            await self.settled()
        return ended

    async def _set(self, text: str) -> Ended:
        """Keep the variables as they are after this line."""
        ended = await self.shell.run(f"{text.replace('unset ', 'unset -v ')}; env -0 > variables")
        assert 0 == ended.code, f"{text}: {ended}"
        file = self.shell.folder / "variables"
        now = dict(each.partition("=")[::2] for each in file.read_text(encoding="utf-8").split("\0") if each)
        self.shell.variables.clear()
        self.shell.variables.update({name: now[name] for name in now if name not in {"PATH", "PGPASSFILE", "PWD"}})
        return ended

    async def _serve(self, text: str) -> Ended:
        """Start a server, and return once it has said that it serves; it ends with the page.

        One of hookseal ends with 0 when it is asked to; a program of the page dies of the signal.
        """
        is_ours = text.startswith("hookseal ")
        process = await self.shell.start(text if is_ours else f"exec {text}")
        self._servers.append((process, 0 if is_ours else -signal.SIGTERM))
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await process.stdout.readline()
        assert line, f"{text}: {await process.communicate()}"
        return Ended(code=0, out=line.decode(), err="")


async def _ended(server: Process) -> int | None:
    """Return the exit code of a server that is asked to end."""
    with suppress(ProcessLookupError):
        server.terminate()
    try:
        await asyncio.wait_for(server.communicate(), DEADLINE_SECONDS)
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    return server.returncode


def words(command: str) -> list[str] | None:
    """Return the words of a command of hookseal, without its variables; None if it is none that can be read."""
    text = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command)
    if not text.startswith("hookseal "):
        return None
    try:
        return shlex.split(re.split(r" [|>]|;", text)[0])[1:]
    except ValueError:
        return None
