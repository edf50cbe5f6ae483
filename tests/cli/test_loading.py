"""Commands load only the modules that they need, since loading takes longer than most commands run."""

import pytest

from tests.cli.command import Ended, python
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port

_MACHINERY = {"aiohttp", "asyncpg", "arq", "redis", "cryptography"}
_PARSER = {"typer", "rich", "pydantic", "structlog"}


def loaded(ended: Ended) -> set[str]:
    """Return every module that the process loaded, as `-X importtime` reports them."""
    assert 0 == ended.code, ended.err
    return modules(ended)


def modules(ended: Ended) -> set[str]:
    """Return the same of a process with any exit code."""
    return {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("words", [("--version",), ("--version", "--json"), ("--json", "--version")])
async def test_version_loads_little(words: tuple[str, ...]) -> None:
    """`--version` loads nothing of what parses commands, and no machinery."""
    ended = await python("-X", "importtime", "-m", "hookseal", *words)

    assert set() == loaded(ended) & (_PARSER | _MACHINERY | {"http.client"})
    assert "0." in ended.out


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("words", [(), ("--json",), ("--url", "{url}"), ("--json", "--url={url}")])
async def test_check_loads_little(words: tuple[str, ...]) -> None:
    """`check` as a probe runs it, every few seconds, loads nothing of what parses commands, and no machinery."""
    url = f"http://127.0.0.1:{closed_port()}"
    given = [word.format(url=url) for word in words]
    ended = await python("-X", "importtime", "-m", "hookseal", "check", *given, HOOKSEAL_HEALTH_PORT=url[17:])

    assert url in ended.out + ended.err
    assert set() == modules(ended) & (_PARSER | _MACHINERY)


@pytest.mark.parametrize("words", [("key", "status"), ("endpoint", "list", "--tenant", "acme")])
async def test_a_reading_command_loads_no_transport(words: tuple[str, ...], begun: Begun) -> None:
    """A command that only reads PostgreSQL does not load what sends requests."""
    found = loaded(await python("-X", "importtime", "-m", "hookseal", *words, **begun.settings))

    assert {"asyncpg", "cryptography"} == found & _MACHINERY
