"""A shell in which the commands of a document run as written."""

import asyncio
import os
import re
import shlex
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hookseal.embedded.server import postgres_tree
from tests import forked
from tests.cli.command import DEADLINE_SECONDS, Ended


def _without_a_shell(command: str) -> tuple[list[str], str] | None:
    """Return the words of a command of hookseal that needs no shell, and the file that gets its output, if any."""
    words, _, file = command.partition(" > ")
    bare = re.sub(r"'[^']*'", "", words + file)
    if not words.startswith("hookseal ") or set("$`|&;<>()*?[]~#\\\n") & set(bare):
        return None
    return shlex.split(words)[1:], file


@dataclass(frozen=True, slots=True)
class Shell:
    """A folder in which commands run, with the variables that they use."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    async def run(self, command: str, **changes: str) -> Ended:
        """Run the command to its end."""
        process = await self.start(command, **changes)
        try:
            out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Ended(code=process.returncode or 0, out=(out or b"").decode(), err=err.decode())

    async def start(self, command: str, **changes: str) -> Process:
        """Start the command; one of hookseal that needs no shell is the process itself."""
        programs = f"{postgres_tree() / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {"PATH": programs, "PGPASSFILE": str(self.folder / "pgpass"), **self.variables, **changes}
        if found := _without_a_shell(command):
            words, file = found
            with ExitStack() as opened:
                output = opened.enter_context((self.folder / file).open("wb")) if file else PIPE
                return await forked.start(*words, cwd=self.folder, env=env, stdout=output, stderr=PIPE)
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-u", "-c", command), cwd=self.folder, env=env, stdout=PIPE, stderr=PIPE
        )

    async def done(self, *commands: str, **changes: str) -> list[Ended]:
        """Run commands one after another; each must succeed."""
        ended = []
        for command in commands:
            ended.append(one := await self.run(command, **changes))
            assert 0 == one.code, f"{command}: {one.out}{one.err}"
        return ended

    def know(self, host: str, port: int, user: str, password: str) -> None:
        """Store this password for the programs of PostgreSQL."""
        file = self.folder / "pgpass"
        file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as passwords:
            passwords.write(f"{host}:{port}:*:{user}:{password}\n")
