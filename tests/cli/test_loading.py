"""What a command loads: it takes longer than most commands run, so none loads what others need."""

import pytest

from tests.cli.begun import Begun
from tests.cli.command import Ended, python

_MACHINERY = {"aiohttp", "asyncpg", "arq", "redis", "cryptography"}


def loaded(ended: Ended) -> set[str]:
    """Return every module that the process loaded, as `-X importtime` reports them."""
    assert 0 == ended.code, ended.err
    return {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("options", [("--version",), ("--version", "--json"), ("--json", "--version")])
async def test_the_version(options: tuple[str, ...]) -> None:
    """The version is printed without any machinery."""
    ended = await python("-X", "importtime", "-m", "hookseal", *options)
    found = loaded(ended)

    assert "hookseal.cli.commands" in found
    assert set() == found & _MACHINERY
    assert "0." in ended.out


@pytest.mark.parametrize("words", [("key", "status"), ("endpoint", "list", "--tenant", "acme")])
async def test_an_operator_who_sends_nothing(words: tuple[str, ...], begun: Begun) -> None:
    """A command that reads PostgreSQL loads its client, and not what requests are sent with."""
    found = loaded(await python("-X", "importtime", "-m", "hookseal", *words, **begun.settings))

    assert {"asyncpg", "cryptography"} == found & _MACHINERY
