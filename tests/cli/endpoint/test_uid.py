"""Wherever a command takes `--endpoint`, it takes the id or the uid, of the tenant that it names."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from hookseal.cli.commands import tree
from tests.cli.installation import Begun

pytestmark = pytest.mark.timeout(300)  # runs many commands one after the other

ADD = "endpoint add --tenant acme --url https://receiver.example/hook --event-type '*' --uid main"
# Each changes what the one before left, or nothing.
COMMANDS = (
    *("endpoint show", "endpoint stats", "endpoint rotation-status", "secret versions", "delivery list"),
    *(
        "delivery attempts",
        "endpoint update --name Billing",
        "endpoint rotate --no-wait",
        "endpoint rollback --no-wait",
    ),
    *("endpoint rotate --overlap 0 --no-wait", "endpoint disable", "endpoint enable", "endpoint retry"),
    *("secret reveal --print-secret", "endpoint delete --yes"),
)


async def run(begun: Begun, command: str, **named: str) -> tuple[int, dict[str, Any]]:
    options = shlex.join(word for name, value in named.items() for word in (f"--{name}", value))
    ended = await begun.run(*shlex.split(f"{command} {options} --json"))
    return ended.code, ended.json


def helps(command: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every command with the option `--endpoint`, and its help."""
    for name, each in getattr(command, "commands", {}).items():
        yield from helps(each, f"{path} {name}")
    for option in command.params:
        if "--endpoint" in option.opts:
            yield path.strip(), option.help


def test_every_help_says_it() -> None:
    said = dict(helps(typer.main.get_command(tree(None))))

    assert {command.split(" --")[0] for command in COMMANDS} | {"replay start", "delivery resend"} <= said.keys()
    assert [] == [command for command, text in said.items() if "uid" not in text]


async def test_an_endpoint_is_named_by_its_uid(begun: Begun) -> None:
    endpoint = (await run(begun, ADD))[1]["endpoint_id"]
    theirs = (await run(begun, ADD.replace("acme", "globex").replace("main", "theirs")))[1]["endpoint_id"]
    for command in COMMANDS:
        assert 3 == (await run(begun, command, tenant="acme", endpoint="theirs"))[0], command
        code, answer = await run(begun, command, tenant="acme", endpoint="main")
        named = answer["items"][0] if answer.get("items") else answer
        assert (0, endpoint) == (code, named.get("endpoint_id", endpoint)), (command, answer)

    left = await begun.stored.pool.fetch("SELECT id::text FROM hookseal.endpoints")
    assert [theirs] == [row["id"] for row in left]
    code, answer = await run(begun, "endpoint show", tenant="acme", endpoint="main")
    assert (3, "not_found") == (code, answer["error"]["code"])
