"""Every command, run with a login of each SQL role: it works, or it is refused and changes nothing. Each answers JSON.

Every role has the master key here, as a worker has: so the rights in PostgreSQL alone decide. This is the list that the
threat model refers to. A command without a row fails the test.
"""

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from hookseal.cli.commands import tree
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from tests import rows
from tests.cli.installation import Begun
from tests.cli.key.test_moves import DONE, NEXT, SWAPPED, WITH_NEXT
from tests.doubles.logins import login
from tests.doubles.master_keys import OLD
from tests.operations.test_replay_jobs import dead_letters, started

pytestmark = [pytest.mark.req("OPS-10"), pytest.mark.timeout(600)]  # many commands in sequence

ROLES: Final = ("worker", "operator", "api", "producer", "readonly", "publisher")
READS: Final = frozenset({"worker", "operator", "api", "readonly"})
WRITES: Final = frozenset({"operator"})
MANAGES: Final = frozenset({"operator", "api"})
SEES_RESULTS: Final = frozenset({"operator", "api", "readonly"})
SEES_PRODUCERS: Final = frozenset({"operator", "readonly"})
ALSO_WORKER: Final = frozenset({"worker", "operator"})
ALL_THREE: Final = frozenset({"worker", "operator", "api"})
_OF: Final = "--tenant acme --endpoint {endpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One command, for whom it works, with which code, the code of a refusal, and the keys that it is given."""

    words: str
    works_for: frozenset[str]
    code: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)


def _reads(words: str) -> Row:
    return Row(words=words, works_for=READS)


def _writes(words: str, **more: Any) -> Row:
    return Row(words=words, works_for=WRITES, **more)


def _manages(words: str, **more: Any) -> Row:
    return Row(words=words, works_for=MANAGES, **more)


# In this order: a command of the life of a master key needs those before it.
TABLE: Final = (
    Row(words="publish --tenant acme --event-type a.b --data {{}}", works_for=frozenset({"producer"})),
    _writes("migrate-secrets"),
    _manages("import-endpoints --from-csv {csv}", refused={"worker": 1}),  # it refuses every row
    _manages("endpoint add --tenant acme --url https://receiver.example/{number} --event-type *"),
    _reads("endpoint list"),
    _reads("endpoint list --state held"),
    _reads(f"endpoint show {_OF}"),
    _reads("endpoint stats --tenant acme"),
    _reads("endpoint stats --state failing --sort p99"),
    _manages(f"endpoint update {_OF} --url https://elsewhere.example/{{number}}"),
    _manages(f"endpoint update {_OF} --timeout-ms 2000"),
    _manages(f"endpoint update {_OF} --header X-A:1"),
    _manages(f"endpoint update {_OF} --lead current"),
    _manages("endpoint enable --tenant acme --endpoint {disabled}"),
    Row(words="endpoint retry --tenant acme --endpoint {put_off}", works_for=ALL_THREE),
    Row(words=f"endpoint disable {_OF} --reason x", works_for=ALL_THREE),
    _manages(f"endpoint delete {_OF} --yes"),
    Row(words="endpoint public-key --tenant acme --endpoint {ed25519}", works_for=ALSO_WORKER),
    Row(words=f"endpoint rotate {_OF}", works_for=ALL_THREE),
    _manages(f"endpoint rotate {_OF} --overlap 60"),
    _manages(f"endpoint rotate {_OF} --overlap 0 --no-wait"),
    _manages(f"endpoint rotate {_OF} --scheme x-webhook"),
    _manages("endpoint rotate --tenant acme --endpoint {rotated} --force"),
    _manages("endpoint rollback --tenant acme --endpoint {rotated}"),
    _manages("endpoint end-overlap --tenant acme --endpoint {rotated}"),
    Row(words=f"endpoint rotation-status {_OF}", works_for=SEES_RESULTS),
    Row(words=f"endpoint test {_OF}", works_for=ALSO_WORKER, code=1),  # nobody answers
    Row(words="status", works_for=SEES_RESULTS, code=1),  # no worker is live
    Row(words="top", works_for=SEES_RESULTS),
    Row(words="find acme", works_for=SEES_RESULTS),
    _reads("event list --tenant acme"),
    _reads("event show {event} --tenant acme"),
    Row(words="event show {event} --tenant acme --payload", works_for=ALL_THREE),
    _reads("delivery list"),
    _reads("delivery show {delivery}"),
    _reads("delivery why {delivery}"),
    _reads("delivery attempts --tenant acme --event-id {event}"),
    Row(words="delivery replay {dead}", works_for=ALL_THREE),
    Row(words="delivery resend --tenant acme --event-id {dead_event} --endpoint {dead_endpoint}", works_for=ALL_THREE),
    Row(words="delivery skip {stopping}", works_for=ALL_THREE),
    _manages("replay start --tenant acme"),
    _reads("replay status"),
    _reads("replay list"),
    Row(words="replay cancel {replay}", works_for=ALL_THREE),
    _reads(f"secret versions {_OF}"),
    Row(words=f"secret reveal {_OF} --print-secret", works_for=ALSO_WORKER),
    Row(words="secret purge --older-than 7", works_for=ALL_THREE),
    Row(words="secret move --to db", works_for=ALL_THREE),  # nothing is to be moved; a worker may not write a provider
    _writes("secret cache-clear"),
    _writes("producer grant --role {producer} --tenant globex"),
    _writes("producer revoke --role {producer} --tenant globex"),
    Row(words="producer list", works_for=SEES_PRODUCERS),
    _manages("event-type add --name a.t{number} --example {{}}"),
    Row(words="event-type list", works_for=SEES_RESULTS),
    _manages("event-type remove --name {event_type}"),
    _manages("tenant add --tenant t{number}"),
    Row(words="tenant list", works_for=SEES_RESULTS),
    _manages("tenant delete --tenant {tenant} --yes"),
    _manages("token add --name t{number} --tenant acme"),
    Row(words="token list", works_for=SEES_RESULTS),
    _manages("token revoke --name {token}"),
    _manages("portal link --tenant acme", keys={"HOOKSEAL_PORTAL_URL": "https://webhooks.example"}),
    _reads("audit list"),
    Row(words="audit verify", works_for=ALL_THREE),
    _reads("audit heads"),
    _reads("audit export"),
    Row(words="restore check", works_for=ALL_THREE),
    _writes("restore accept --head {heads}"),
    Row(words="db status", works_for=READS | {"producer"}),
    Row(words="db roles --strict", works_for=READS | {"producer"}),
    Row(words="db upgrade", works_for=frozenset()),
    Row(words="doctor", works_for=ALL_THREE, refused={"readonly": 1, "producer": 1, "publisher": 1}),
    Row(words="worker", works_for=frozenset({"worker"})),
    Row(words="api", works_for=ALL_THREE),
    Row(words="key init", works_for=ALL_THREE, code=4),  # it sees that they exist already
    _reads("key status"),
    Row(words="key versions {key}", works_for=ALL_THREE),
    _writes("key rotate-integrity"),
    _writes("key stage", keys=WITH_NEXT),
    _writes("key promote {next}", keys=WITH_NEXT),
    _writes("key rewrap {key}", keys=SWAPPED),
    _writes("key compromise {key}", keys=SWAPPED, code=1),  # it leaves the endpoints whose overlap is running
    _writes("key retire {key}", keys=SWAPPED),
    _writes("key destroy {key}", keys=DONE),
)
# These open no connection to PostgreSQL.
WITHOUT_DATABASE: Final = frozenset({"demo", "up", "up env", "listen", "verify", "check", "key wrap"})
# They run until they are ended: tests/worker/test_roles.py and tests/cli/test_api.py run them as these roles.
ENDLESS: Final = frozenset({("worker", "worker"), ("api", "api"), ("api", "operator"), ("api", "worker")})
_STATE: Final = """
SELECT concat((SELECT array_agg(e ORDER BY e.id) FROM hookseal.endpoints AS e),
              (SELECT array_agg(r ORDER BY r) FROM hookseal.secret_records AS r),
              (SELECT array_agg(k ORDER BY k) FROM hookseal.secret_keys AS k),
              (SELECT count(*) FROM hookseal.audit_log), (SELECT count(*) FROM hookseal.events))
"""


def commands(found: Any = None, path: tuple[str, ...] = ()) -> set[str]:
    """Return the words of every command."""
    found = typer.main.get_command(tree(None)) if found is None else found
    inner = getattr(found, "commands", {})
    own = set() if inner and not getattr(found, "invoke_without_command", False) else {" ".join(path)}
    return own.union(*(commands(each, (*path, name)) for name, each in inner.items())) - {""}


class Targets:
    """What the commands name, made anew for each run by the owner of the database."""

    def __init__(self, begun: Begun, folder: Path, producer: str) -> None:
        self._begun = begun
        self._folder = folder
        self._producer = producer
        self._number = 0
        self._endpoint_of_dead = ""

    async def of(self, words: str) -> list[str]:
        """Return the words with what they name."""
        return [await self._filled(word) for word in words.split()]

    async def _filled(self, word: str) -> str:
        found = {}
        for name in (
            "endpoint",
            "ed25519",
            "disabled",
            "put_off",
            "rotated",
            "dead",
            "dead_event",
            "dead_endpoint",
            "stopping",
            "delivery",
            "event",
            "replay",
            "event_type",
            "tenant",
            "token",
            "csv",
            "heads",
        ):
            if f"{{{name}}}" in word:
                found[name] = await getattr(self, f"_{name}")()
        self._number += 1
        plain = {"number": self._number, "producer": self._producer, "key": OLD.key_id, "next": NEXT.key_id}
        return word.format(**plain, **found)

    async def _endpoint(self) -> str:
        self._number += 1
        return (
            await self._begun.stored.endpoint(url=f"https://receiver.example/made/{self._number}")
        ).pointer.endpoint_id

    async def _ed25519(self) -> str:
        self._number += 1
        url = f"https://receiver.example/made/{self._number}"
        new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), algorithm=Algorithm.ED25519)
        return (await self._begun.stored.add(new)).pointer.endpoint_id

    async def _disabled(self) -> str:
        endpoint = await self._endpoint()
        await self._owner("endpoint", "disable", "--tenant", "acme", "--endpoint", endpoint, "--reason", "x")
        return endpoint

    async def _put_off(self) -> str:
        endpoint = await self._endpoint()
        await rows.delivery(self._begun.stored.pool, endpoint, next_attempt_at=rows.ahead(hours=1))
        return endpoint

    async def _rotated(self) -> str:
        endpoint = await self._endpoint()
        await self._owner("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint)
        return endpoint

    async def _delivery(self) -> str:
        return str((await self._begun.stored.deliveries())[0].delivery_id)

    async def _event(self) -> str:
        return str((await self._begun.stored.published()).event_id)

    async def _dead(self) -> str:
        return str((await dead_letters(self._begun.stored, 1))[0])

    async def _dead_event(self) -> str:
        facts = "event_id, endpoint_id::text"
        found = f"SELECT {facts} FROM hookseal.deliveries WHERE id = $1::text::uuid"  # noqa: S608 -- ours
        event, self._endpoint_of_dead = await self._begun.stored.pool.fetchrow(found, await self._dead()) or ("", "")
        return str(event)

    async def _dead_endpoint(self) -> str:
        return self._endpoint_of_dead

    async def _stopping(self) -> str:
        delivery = await self._dead()
        await self._begun.stored.pool.execute(
            "UPDATE hookseal.deliveries SET position = 1 WHERE id = $1::text::uuid", delivery
        )
        return delivery

    async def _replay(self) -> str:
        await self._begun.stored.pool.execute("DELETE FROM hookseal.replays")  # only a few may run
        return str((await started(self._begun.stored)).replay_id)

    async def _event_type(self) -> str:
        self._number += 1
        await self._owner("event-type", "add", "--name", f"made.t{self._number}")
        return f"made.t{self._number}"

    async def _tenant(self) -> str:
        self._number += 1
        await self._begun.stored.endpoint(f"made{self._number}")
        return f"made{self._number}"

    async def _token(self) -> str:
        self._number += 1
        await self._owner("token", "add", "--name", f"made{self._number}", "--tenant", "acme")
        return f"made{self._number}"

    async def _csv(self) -> str:
        self._number += 1
        path = self._folder / "endpoints.csv"
        secret = "whsec_" + "A" * 43 + "="
        path.write_text(
            f"tenant_id,url,event_types,secret,scheme\nacme,https://receiver.example/csv/{self._number},*,{secret},standard\n"
        )
        path.chmod(0o600)
        return str(path)

    async def _heads(self) -> str:
        path = self._folder / "heads.json"
        path.write_text((await self._owner("audit", "heads", "--json")).out)
        return str(path)

    async def _owner(self, *words: str) -> Any:
        ended = await self._begun.run(*words)
        assert 0 == ended.code, ended.err
        return ended


def objects(out: str) -> list[Any]:
    """Return what is on each line; nothing if a line is no JSON."""
    try:
        return [json.loads(line) for line in out.splitlines()]
    except ValueError:
        return []


def test_every_command_has_a_row() -> None:
    """Each command is in the table, or opens no connection to PostgreSQL."""
    named = {command for command in commands() for row in TABLE if f"{row.words} ".startswith(f"{command} ")}

    assert commands() == named | WITHOUT_DATABASE


@pytest.mark.req("OPS-04", part="json")
async def test_each_role_runs_what_the_table_says(begun: Begun, tmp_path: Path) -> None:
    """A command works with the roles of its row; with every other it exits with 5, and nothing is changed.

    With `--json` its answer is one object, and so is its error; `audit export` prints one for each row.
    """
    pool, wrong = begun.stored.pool, []
    async with AsyncExitStack() as stack:
        logins = {
            role: await stack.enter_async_context(login(pool, begun.settings["DATABASE_URL"], f"hookseal_{role}"))
            for role in ROLES
        }
        producer = logins["producer"][0]
        assert 0 == (await begun.run("producer", "grant", "--role", producer, "--tenant", "acme")).code
        targets = Targets(begun, tmp_path, producer)
        await begun.stored.endpoint()
        for row in TABLE:
            for role in sorted(ROLES, key=row.works_for.__contains__):
                if (row.words, role) in ENDLESS:
                    continue
                words = await targets.of(row.words)
                before = await pool.fetchval(_STATE)
                ended = await begun.run(*words, "--json", **{"DATABASE_URL": logins[role][1], **row.keys})
                expected = row.code if role in row.works_for else row.refused.get(role, 5)
                unchanged = role in row.works_for or before == await pool.fetchval(_STATE)
                answers = objects(ended.out)
                is_answered = len(answers) == 1 or (row.words == "audit export" and expected == 0)
                is_error = any(answer.keys() == {"error"} for answer in answers)
                if (ended.code, unchanged, is_answered, is_error) != (expected, True, True, expected > 1):
                    wrong.append((row.words, role, ended.code, unchanged, ended.out[-200:], ended.err[-200:]))

    assert [] == wrong, json.dumps(wrong, indent=1)
