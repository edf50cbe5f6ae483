"""What commands show of one thing, and their errors, on a terminal of 80 columns, with the longest names."""

import re
import shlex
from typing import Any, Final

import pytest
import typer

from hookseal.admin import AcceptedRestore, AuditHead, ContradictedHead, RevokedProducer, VerifiedLog, VerifiedTenant
from hookseal.cli import audit, producer, restore
from hookseal.cli.commands import tree
from hookseal.cli.shared.printing import laid_out
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests import rows
from tests.cli.command import hookseal, on_a_terminal
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port
from tests.cli.test_lists import NAME, TENANT, TYPE, URL, filled, plain
from tests.cli.test_main import leaves
from tests.doubles.logins import login

pytestmark = [pytest.mark.req("UX-02"), pytest.mark.timeout(300)]  # many commands, each on a terminal

WIDTH: Final = 80
OF: Final = "--tenant {tenant} --endpoint {endpoint}"
# What shows or changes one thing, in an order in which each can be done, and what each is given.
SHOWN: Final = {
    "delivery show": "{delivery}",
    "delivery why": "{delivery}",
    "endpoint show": OF,
    "endpoint stats": OF,
    "endpoint rotation-status": OF,
    "event show": "{event} --tenant {tenant} --payload",
    "find": "{delivery}",
    "replay status": "{replay}",
    "secret versions": OF,
    "delivery replay": "{delivery}",
    "endpoint add": "--tenant {tenant} --url {url}/2 --event-type {type} --name {name} --print-secret",
    "endpoint update": f"{OF} --name other --timeout 8s --metadata {'k' * 60}={'v' * 60}",
    "endpoint retry": OF,
    "endpoint rotate": f"{OF} --force",
    "endpoint rollback": OF,
    "endpoint end-overlap": OF,
    "endpoint disable": f"{OF} --reason '{'word ' * 40}'",
    "endpoint enable": OF,
    "secret reveal": f"{OF} --print-secret",
    "key status": "",
    "db status": "",
    "status": "",
    "doctor": "",
    "audit verify": "",
    "endpoint delete": f"{OF} --yes",
}
FINDS: Final = {"status": 1}  # exit codes: there is no worker
# Refusals: of the parser, of a rule, of what is stored, of a setting, and of a server that does not answer.
REFUSED: Final = {
    "delivery list --state x": 2,
    "endpoint list --limit x": 2,
    "event list": 2,
    "delivery show x": 2,
    f"endpoint show {OF} --uid x": 2,
    "endpoint add --tenant a --url https://r.example/ --event-type a --scheme x-webhook --algorithm ed25519": 2,
    "endpoint add --tenant {tenant} --url {url} --event-type a --print-secret": 4,
    "endpoint add --tenant a --url https://169.254.169.254/latest --event-type a --print-secret": 5,
    f"endpoint rotate {OF} --no-wait": 4,
    f"endpoint public-key {OF}": 5,
    f"secret reveal {OF} --json --print-secret=x": 2,
    "delivery replay {held}": 4,
    "delivery skip {delivery}": 4,
    "replay cancel {endpoint}": 3,
    "portal link --tenant {tenant}": 78,
    "tenant add --tenant 'a b' --name a": 2,
}


def too_long(text: str) -> list[str]:
    """Return the lines that are too long: all but one piece, as an id is, and a command that is to be copied."""
    return [
        line
        for line in plain(text)
        if len(line) > WIDTH and " " in line.strip() and not line.startswith(("  hookseal ", "{", "["))
    ]


def test_every_command_that_shows_is_tried() -> None:
    """Each command with the name `show`, `why` or `status` is tried here, or changes with time and has tests apart."""
    commands = {name.strip() for name, _ in leaves(typer.main.get_command(tree(None)), "")}
    shows = {name for name in commands if re.search(r"\b(show|why|status)$", name)}
    assert SHOWN.keys() <= commands
    assert shows <= SHOWN.keys()


async def test_what_is_shown_fits_the_terminal(begun: Begun) -> None:
    """No line is longer than the terminal, but one that has only an id or a command; no id or URL is folded."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        made = await filled(begun, role)
        found = made | {"url": URL, "type": TYPE, "name": NAME}
        for command, options in SHOWN.items():
            words = [*command.split(), *shlex.split(options.format(**found))]
            shown = await on_a_terminal(*words, **begun.settings, COLUMNS=str(WIDTH))
            assert shown.code == FINDS.get(command, 0), (command, shown)
            assert [] == too_long(shown.out), command
            folded = [each for each in (*made.values(), URL) if each[:30] in shown.out and each not in shown.out]
            assert [] == folded, (command, shown.out)


async def test_an_error_fits_the_terminal(begun: Begun) -> None:
    """Its lines break between words, and a command in it is whole; it says what it says without a terminal."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"]) as (role, _):
        found: dict[str, Any] = await filled(begun, role) | {"url": URL, "name": NAME}
        new = NewEndpoint(tenant_id=TenantId(TENANT), url=f"{URL}/2", event_types=(TYPE,))
        other = (await begun.stored.add(new)).pointer.endpoint_id
        held = {"waiting_for": "breaker", "held_at": rows.NOW, "last_error": "word " * 30}
        found["held"] = await rows.delivery(begun.stored.pool, other, found["event"], tenant=TENANT, **held)
        for line, code in REFUSED.items():
            words = shlex.split(line.format(**found))
            await require_fitting(words, code, begun.settings)
    nowhere = {"DATABASE_URL": f"postgresql://{'u' * 60}:p@127.0.0.1:{closed_port()}/{'d' * 60}"}
    await require_fitting(["delivery", "list"], 69, begun.settings | nowhere)
    await require_fitting(["check", "--url", f"http://127.0.0.1:{closed_port()}"], 69, {})
    await require_fitting(["key", "init"], 78, {"SECRETS_PROVIDR": "db"})


@pytest.mark.pure
def test_a_name_of_others_marks_no_command() -> None:
    """A log that hookseal did not write names any tenant, and a database any role: their backticks are text."""
    name = "x `hookseal up`"
    verified = VerifiedTenant(tenant_id=name, rows=1, head_sequence=1, head_mac="m", broken=None)
    contradicted = ContradictedHead(tenant_id=name, head_sequence=1, head_mac="m", how="older")
    texts = [
        audit._head_text(AuditHead(tenant_id=name, head_sequence=1, head_mac="m", is_plausible=False)),
        audit._verify_text(VerifiedLog(intact=True, tenants=(verified,), contradicted=(contradicted,), unaudited=())),
        restore._accepted_text(
            AcceptedRestore(epoch=1, woken=0, accepted=(), refused=(), contradicted=(contradicted,))
        ),
        *(
            producer._revoked_text(
                RevokedProducer(role=name, tenant_id="acme", left_to_run=None, still_for_every_tenant=still)
            )
            for still in (False, True)
        ),
    ]
    assert [] == [text for text in texts if "`hookseal up" in text]


@pytest.mark.pure
@pytest.mark.parametrize("role", ["billing", "one role of billing", "it's `role`", "role:"])
def test_a_command_with_a_name_of_others_can_be_copied(role: str) -> None:
    """It stands whole on its line, however long the name is, and a shell reads the name from it."""
    text = producer._revoked_text(
        RevokedProducer(role=role, tenant_id="acme", left_to_run=None, still_for_every_tenant=True)
    )
    shown = [part for line in text.splitlines() for part in laid_out(line, 60)]
    assert ["hookseal", "producer", "revoke", "--tenant", "*", "--role", role] == shlex.split(shown[-1])


async def require_fitting(words: list[str], code: int, settings: dict[str, str]) -> None:
    """Fail unless the error of the command fits the terminal, and has the words that it has without one."""
    shown = await on_a_terminal(*words, stream="stderr", **settings, COLUMNS=str(WIDTH))
    piped = await hookseal(*words, **settings)

    assert (code, code) == (shown.code, piped.code), (words, shown.err)
    assert [] == too_long(shown.err), words
    assert said(piped.err) == said(shown.err)


def said(text: str) -> list[str]:
    """Return the words of an error, without what lays it out."""
    return re.sub(r"^hookseal:|^ *\| |[`.,:;]+(?=\s|$)|(?<=\s)`", "", text, flags=re.MULTILINE).split()
