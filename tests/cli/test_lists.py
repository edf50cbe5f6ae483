"""Every list of the command on terminals of 80 and 120 columns, with the longest names that there may be."""

from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Final

import pytest
import typer

from hookseal.cli.commands import tree
from hookseal.dispatcher.core.replay_job import Selection
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests import rows
from tests.cli.command import on_a_terminal
from tests.cli.installation import Begun
from tests.cli.test_main import leaves
from tests.doubles.logins import login
from tests.doubles.master_keys import OLD
from tests.operations.test_replay_jobs import started

pytestmark = [pytest.mark.req("UX-02"), pytest.mark.timeout(300)]  # many commands, each on a terminal

TENANT: Final = "t" * 63
URL: Final = f"https://receiver.example/{'u' * 175}"
EVENT: Final = "e" * 128
TYPE: Final = f"{'word.' * 25}end"
NAME: Final = "n" * 128
# The lists and what each is given.
LISTS: Final = {
    "audit list": "",
    "delivery attempts": "--tenant {tenant} --event-id {event}",
    "delivery list": "",
    "endpoint list": "",
    "endpoint stats": "",
    "event list": "--tenant {tenant}",
    "event-type list": "",
    "key status": "",
    "key versions": "{key}",
    "producer list": "",
    "replay list": "",
    "replay status": "",
    "secret versions": "--tenant {tenant} --endpoint {endpoint}",
    "tenant list": "",
    "token list": "",
}


def test_every_list_is_tried() -> None:
    """Each command with `--wide` is tried here, and each command whose name says that it lists has `--wide`."""
    commands = dict(leaves(typer.main.get_command(tree(None)), ""))
    wide = {name.strip() for name, command in commands.items() if "--wide" in options(command)}
    assert LISTS.keys() == wide
    assert {name.strip() for name in commands if name.endswith((" list", " versions", " attempts", " stats"))} <= wide


def test_every_tenant_is_the_default() -> None:
    """A command is about every tenant by the same value, `*`, its default; any other option has none."""
    defaults: dict[Any, set[str]] = {}
    for name, command in leaves(typer.main.get_command(tree(None)), ""):
        for parameter in getattr(command, "params", []):
            if "--tenant" in parameter.opts and not parameter.required:
                defaults.setdefault(parameter.default, set()).add(name.strip())
    assert {"producer list", "restore accept", "tenant add"} == defaults.pop(None)
    assert ["*"] == list(defaults)


@pytest.mark.parametrize(
    "words",
    ["endpoint list", "endpoint stats", "secret move --to db --dry-run", "secret purge --older-than 0 --dry-run"],
)
async def test_every_tenant_may_be_named(words: str, begun: Begun) -> None:
    """A command for which `*` is every tenant answers as it does without the option."""
    await begun.stored.endpoint()
    named, unnamed = [await begun.run(*words.split(), *of, "--json") for of in (("--tenant", "*"), ())]
    assert (0, unnamed.json) == (named.code, named.json)


def options(command: Any) -> list[str]:
    """Return the options of a command."""
    return [option for parameter in command.params for option in parameter.opts]


async def test_every_list_fits_the_terminal(begun: Begun) -> None:
    """No line is longer than the terminal, but one that has only an id. No id is cut, and with `--wide` nothing is."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        found = await filled(begun, role)
        for command, more in LISTS.items():
            words = [*command.split(), *more.format(**found).split()]
            for width in (80, 120):
                usual, wide = [
                    await on_a_terminal(*words, *option, **begun.settings, COLUMNS=str(width))
                    for option in ((), ("--wide",))
                ]
                assert (0, 0) == (usual.code, wide.code), (command, usual.err, wide.err)
                table = takewhile(bool, plain(usual.out))  # behind an empty line stand sentences
                assert [] == [line for line in table if len(line) > width and " " in line.strip()], (command, width)
                assert [] == [cut for cut in found.values() if cut[:30] in usual.out and cut not in usual.out], command
                assert [] == [line for line in plain(wide.out) if "…" in line], command


def plain(text: str) -> list[str]:
    """Return the lines of a terminal without colours."""
    return text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


async def filled(begun: Begun, role: str) -> dict[str, str]:
    """Put one row with long names into each list; return the id of each."""
    pool = begun.stored.pool
    new = NewEndpoint(tenant_id=TenantId(TENANT), url=URL, event_types=("*",), settings={"name": NAME})
    endpoint = (await begun.stored.add(new)).pointer.endpoint_id
    await begun.stored.rotate(endpoint, tenant=TENANT, overlap_seconds=3_600)
    event = await rows.event(pool, TENANT, id=EVENT, event_type=TYPE, correlation_id="c" * 128)
    delivery = await rows.delivery(
        pool, endpoint, event, tenant=TENANT, state="dead_letter", attempts=11, last_error="word " * 60
    )
    await rows.attempt(
        pool,
        delivery,
        tenant=TENANT,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        outcome="unexpected_status",
        status=None,
    )
    replay = (await started(begun.stored, Selection(tenant_id=TenantId(TENANT)))).replay_id
    for words in (
        ("event-type", "add", "--name", TYPE, "--description", "word " * 60),
        ("token", "add", "--name", "k" * 63, "--tenant", TENANT, "--expires", "90d"),
        ("producer", "grant", "--role", role, "--tenant", TENANT),
    ):
        ended = await begun.run(*words)
        assert 0 == ended.code, ended.err
    return {
        "tenant": TENANT,
        "event": EVENT,
        "endpoint": endpoint,
        "key": OLD.key_id,
        "delivery": delivery,
        "replay": replay,
        "role": role,
    }


async def test_a_list_of_an_unknown_tenant_says_so(begun: Begun) -> None:
    """On standard error, also with --json; the list is empty, and the command succeeds."""
    await begun.run("tenant", "add", "--tenant", "acme")
    unknown = "no tenant nope is known: it was not added and has no endpoint, so look whether its name is right\n"
    for command in (
        *("audit list", "delivery list", "endpoint list", "endpoint stats", "event list"),
        *("producer list", "replay list", "token list"),
    ):
        for tenant, expected in (("nope", unknown), ("acme", "")):
            ended = await begun.run(*command.split(), "--tenant", tenant, "--json")
            assert (0, expected) == (ended.code, ended.err), command
            assert tenant == "acme" or {"items": [], "next_cursor": None} == ended.json
    for tenant in ("_system", "_operator"):
        assert "" == (await begun.run("audit", "list", "--tenant", tenant)).err
