"""`hookseal endpoint list | show` shows everything of endpoints but their secrets, to whoever may only read."""

import pytest

from tests.cli.begun import Begun
from tests.cli.command import hookseal
from tests.cli.listeners import closed_port
from tests.doubles.logins import login
from tests.doubles.stored import MASTER_KEY_TEXT

pytestmark = pytest.mark.timeout(300)  # many commands, one after the other

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"


def wanted(endpoint: str, tenant: str = "acme") -> tuple[str, ...]:
    """Return the options that name an endpoint."""
    return ("--tenant", tenant, "--endpoint", endpoint)


async def listed(begun: Begun, *options: str) -> list[str]:
    """Return the ids of the endpoints on the one page that is listed."""
    ended = await begun.run("endpoint", "list", *options, "--json")
    assert (0, "") == (ended.code, ended.err)
    assert {"items", "next_cursor"} == ended.json.keys()
    assert ended.json["next_cursor"] is None
    return [item["endpoint_id"] for item in ended.json["items"]]


@pytest.mark.req("OPS-04", part="json")
async def test_show(begun: Begun) -> None:
    """One endpoint is shown with all that was decided about it, its refs, and how much is pending or waits."""
    pointer = (await begun.stored.endpoint()).pointer
    for _ in range(3):
        await begun.stored.deliveries()
    await begun.stored.pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', held_at = now()"
        " WHERE id = (SELECT id FROM hookseal.deliveries LIMIT 1)"
    )
    shown = (await begun.run("endpoint", "show", *wanted(pointer.endpoint_id), "--json")).json
    times = {name: shown.pop(name) for name in ("created_at", "secret_updated_at", "waiting_since")}
    assert all(time.endswith("Z") for time in times.values())
    assert {
        "tenant_id": "acme",
        "endpoint_id": pointer.endpoint_id,
        "name": None,
        "url": "https://receiver.example/hook",
        "event_types": ["*"],
        "enabled": True,
        "disabled_reason": None,
        "disabled_at": None,
        "scheme": "standard",
        "algorithm": "hmac",
        "timeout_ms": 5_000,
        "max_attempts": 10,
        "backoff_base_seconds": 30,
        "backoff_cap_seconds": 43_200,
        "retry_schedule": None,
        "attempts_allowed": 10,
        "secret_ref": pointer.secret_ref,
        "previous_secret_ref": None,
        "previous_secret_expires_at": None,
        "previous_scheme": None,
        "previous_algorithm": None,
        "secret_provider": "db",
        "rotate_every_days": None,
        "header_names": [],
        "headers_ref": None,
        "tls": None,
        "tls_ref": None,
        "lead": "previous",
        "generation": 1,
        "has_plaintext": False,
        "put_back": False,
        "pending_deliveries": 3,
        "waiting_deliveries": 1,
        "next_probe_at": None,
    } == shown


async def test_a_plaintext_is_not_shown(begun: Begun) -> None:
    """Of a secret that an older system left in the clear nothing is shown but that it is there."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET secret = 'hunter2hunter2hunter2'")
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", *wanted(endpoint)),
        ("show", *wanted(endpoint), "--json"),
    ):
        ended = await begun.run("endpoint", *arguments)
        assert 0 == ended.code
        assert "hunter2" not in ended.out + ended.err
    assert (await begun.run("endpoint", "show", *wanted(endpoint), "--json")).json["has_plaintext"]


async def test_for_a_person(begun: Begun) -> None:
    """A person reads facts and a table, whether there is more, and that there is nothing; no text steers a terminal."""
    assert "no endpoints\n" == (await begun.run("endpoint", "list")).out
    first = (await begun.stored.endpoint()).pointer.endpoint_id
    second = (await begun.stored.endpoint("globex")).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET name = E'a\\x1b[2Jb'")
    table = (await begun.run("endpoint", "list")).out.splitlines()
    assert ["tenant", "id", "endpoint", "id", "url", "enabled"] == table[0].split()
    url = "https://receiver.example/hook"
    assert [["globex", second, url, "yes"], ["acme", first, url, "yes"]] == [line.split() for line in table[1:]]
    assert "\nmore: --cursor " in (await begun.run("endpoint", "list", "--limit", "1")).out
    shown = (await begun.run("endpoint", "show", *wanted(first))).out.splitlines()
    assert ["name", "a\\x1b[2Jb"] == shown[2].split()
    assert ["enabled", "yes"] == shown[5].split()


async def test_filters_and_pages(begun: Begun) -> None:
    """Each filter keeps what it names; following the cursor walks every endpoint once, newest first."""
    acme = [
        (await begun.stored.endpoint(url=f"https://receiver.example/{number}")).pointer.endpoint_id
        for number in range(3)
    ]
    globex = (await begun.stored.endpoint("globex")).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE id = $1::text::uuid", acme[1])
    for options, expected in (
        ((), [globex, *reversed(acme)]),
        (("--tenant", "acme"), acme[::-1]),
        (("--disabled",), [acme[1]]),
        (("--enabled", "--tenant", "acme"), [acme[2], acme[0]]),
        (("--tenant", "globex", "--disabled"), []),
        (("--tenant", "never-seen"), []),
    ):
        assert expected == await listed(begun, *options), options

    seen: list[str] = []
    cursor: tuple[str, ...] = ()
    while True:
        page = (await begun.run("endpoint", "list", "--limit", "3", *cursor, "--json")).json
        seen += [item["endpoint_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = ("--cursor", page["next_cursor"])
    assert [globex, *reversed(acme)] == seen


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-04", part="errors")
async def test_not_there(begun: Begun) -> None:
    """Another tenant's endpoint is as unknown as one that nobody has: the answers are the same."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    others = await begun.run("endpoint", "show", *wanted(endpoint, "globex"), "--json")
    nobodys = await begun.run("endpoint", "show", *wanted(UNKNOWN), "--json")
    assert (3, "endpoint") == (others.code, others.json["error"]["field"])
    assert (3, others.out) == (nobodys.code, nobodys.out)


@pytest.mark.req("OPS-10")
async def test_read_only(begun: Begun) -> None:
    """Whoever may only read needs nothing but the database, and changes nothing."""
    pool, database_url = begun.stored.pool, begun.settings["DATABASE_URL"]
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    (ring,) = await begun.stored.deliveries()
    async with login(pool, database_url, "hookseal_readonly") as (_, url):
        for arguments in (
            ("endpoint", "list"),
            ("endpoint", "show", *wanted(endpoint)),
            ("delivery", "list"),
            ("delivery", "show", ring.delivery_id),
            ("secret", "versions", *wanted(endpoint)),
            ("producer", "list"),
        ):
            ended = await hookseal(*arguments, "--json", DATABASE_URL=url)
            assert (0, "") == (ended.code, ended.err), ended.out
        full = {"DATABASE_URL": url, "SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": MASTER_KEY_TEXT}
        refused = await hookseal("endpoint", "disable", *wanted(endpoint), "--json", **full)
        assert 5 == refused.code
    assert await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("list", "--tenant", "_system"), "tenant"),
        (("list", "--limit", "many"), "limit"),
        (("show", *wanted("x")), "endpoint"),
        (("show", *wanted(UNKNOWN.upper())), "endpoint"),
        (("show", *wanted(UNKNOWN, "Acme")), "tenant"),
        (("show", "--tenant", "acme"), "endpoint"),
    ],
)
async def test_values_that_are_malformed(arguments: tuple[str, ...], field: str) -> None:
    """Each class of bad value is 2 with its field, before anything is asked."""
    ended = await hookseal("endpoint", *arguments, "--json", DATABASE_URL="postgresql://127.0.0.1:1/db")
    assert (2, field) == (ended.code, ended.json["error"]["field"])


async def test_pages_that_cannot_be(begun: Begun) -> None:
    """A page size out of its range, and a cursor that no page gave, are 2 with their field."""
    for options, field in ((("--limit", "0"), "limit"), (("--limit", "1001"), "limit"), (("--cursor", "!"), "cursor")):
        ended = await begun.run("endpoint", "list", *options, "--json")
        assert (2, field) == (ended.code, ended.json["error"]["field"])


@pytest.mark.parametrize("arguments", [("list",), ("show", *wanted(UNKNOWN))])
async def test_without_a_database(arguments: tuple[str, ...], empty_database_url: str) -> None:
    """Without a schema the command that makes it is named, and without an answer the address."""
    empty = await hookseal("endpoint", *arguments, "--json", DATABASE_URL=empty_database_url)
    assert 78 == empty.code
    port = closed_port()
    dead = await hookseal("endpoint", *arguments, "--json", DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/db")
    assert 69 == dead.code
    assert f"PostgreSQL at 127.0.0.1:{port}" in dead.json["error"]["message"]


@pytest.mark.parametrize("command", ["list", "show", "update", "enable", "disable", "delete"])
async def test_help_teaches(command: str) -> None:
    """Help has an example."""
    assert f"Example: hookseal endpoint {command}" in (await hookseal("endpoint", command, "--help")).out
