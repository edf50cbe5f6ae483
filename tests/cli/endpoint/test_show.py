"""`hookseal endpoint list` and `show` show everything of endpoints except secrets, with read-only rights."""

from datetime import UTC, datetime

import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests.cli.command import hookseal
from tests.cli.installation import Begun, options_of
from tests.cli.listeners import closed_port
from tests.doubles.logins import login
from tests.doubles.stored import MASTER_KEY_TEXT

HELD = "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints"

pytestmark = pytest.mark.timeout(300)  # runs many commands one after the other

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"


async def listed(begun: Begun, *options: str) -> list[str]:
    """Return the ids of the endpoints on the one listed page."""
    ended = await begun.run("endpoint", "list", *options, "--json")
    assert (0, "") == (ended.code, ended.err)
    assert {"items", "next_cursor"} == ended.json.keys()
    assert ended.json["next_cursor"] is None
    return [item["endpoint_id"] for item in ended.json["items"]]


@pytest.mark.req("OPS-04", part="json")
async def test_show_has_every_setting(begun: Begun) -> None:
    """One endpoint is shown with all its settings, its refs, and the number of pending and held deliveries."""
    pointer = (await begun.stored.endpoint()).pointer
    for _ in range(3):
        await begun.stored.deliveries()
    await begun.stored.pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', held_at = now()"
        " WHERE id = (SELECT id FROM hookseal.deliveries LIMIT 1)"
    )
    shown = (await begun.run("endpoint", "show", *options_of(pointer.endpoint_id), "--json")).json
    times = {name: shown.pop(name) for name in ("created_at", "secret_updated_at", "waiting_since")}
    assert all(time.endswith("Z") for time in times.values())
    assert {
        "tenant_id": "acme",
        "endpoint_id": pointer.endpoint_id,
        "state": "healthy",
        "name": None,
        "url": "https://receiver.example/hook",
        "event_types": ["*"],
        "enabled": True,
        "disabled_reason": None,
        "disabled_at": None,
        "last_disabled_reason": None,
        "last_disabled_at": None,
        "failing_since": None,
        "scheme": "standard",
        "algorithm": "hmac",
        "timeout_ms": 5_000,
        "max_attempts": 10,
        "backoff_base_seconds": 30,
        "backoff_cap_seconds": 43_200,
        "retry_schedule": list(DEFAULT_RETRY_SCHEDULE),
        "attempts_allowed": 11,
        "concurrency": None,
        "ordered": False,
        "on_dead_letter": "stop",
        "stopped_by": None,
        "rate": None,
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
        "stale": False,
        "pending_deliveries": 3,
        "waiting_deliveries": 1,
        "waiting_for": ["secret"],
        "lane": None,
        "next_probe_at": None,
        "last_failure": None,
    } == shown


@pytest.mark.req("DEL-20")
async def test_the_last_failed_attempt_is_shown(begun: Begun) -> None:
    """The last failed attempt is shown, as JSON and as text, although a later attempt of that delivery succeeded."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    rings = [(await begun.stored.deliveries())[0] for _ in range(2)]
    other = (await begun.stored.endpoint(url="https://other.example/")).pointer.endpoint_id
    [of_another] = [ring for ring in await begun.stored.deliveries() if ring.endpoint_id == other]
    for ring, number, minute, outcome, status in (
        (rings[0], 1, 1, "server_error", 500),
        (rings[1], 1, 2, "client_error", 404),
        (of_another, 1, 4, "server_error", 503),
        (rings[1], 2, 3, "delivered", 204),
    ):
        await begun.stored.pool.execute(
            "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, status, outcome, signed_by,"
            " worker) VALUES ('acme', $1::text::uuid, $2, $3, $4, $5, '{}', 'w')",
            *(ring.delivery_id, number, datetime(2026, 3, 1, 12, minute, tzinfo=UTC), status, outcome),
        )
    shown = await begun.run("endpoint", "show", *options_of(endpoint), "--json")
    row = await begun.stored.delivery(rings[1])
    assert {
        "delivery_id": rings[1].delivery_id,
        "event_id": row["event_id"],
        "started_at": "2026-03-01T12:02:00.000Z",
        "outcome": "client_error",
        "status": 404,
    } == shown.json["last_failure"]
    text = (await begun.run("endpoint", "show", *options_of(endpoint))).out
    assert f"2026-03-01T12:02:00.000Z 404 (client_error), delivery {rings[1].delivery_id}" in text


async def test_plaintext_is_reported_and_not_shown(begun: Begun) -> None:
    """A plaintext secret of an older system is reported as present, and not shown."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET secret = 'hunter2hunter2hunter2'")
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", *options_of(endpoint)),
        ("show", *options_of(endpoint), "--json"),
    ):
        ended = await begun.run("endpoint", *arguments)
        assert 0 == ended.code
        assert "hunter2" not in ended.out + ended.err
    assert (await begun.run("endpoint", "show", *options_of(endpoint), "--json")).json["has_plaintext"]


async def test_the_text_cannot_control_the_terminal(begun: Begun) -> None:
    """The text has facts, a table and a note on further pages; values cannot control the terminal."""
    assert "no endpoints\n" == (await begun.run("endpoint", "list")).out
    first = (await begun.stored.endpoint()).pointer.endpoint_id
    second = (await begun.stored.endpoint("globex")).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET name = E'a\\x1b[2Jb' WHERE tenant_id = 'acme'")
    table = (await begun.run("endpoint", "list")).out.splitlines()
    assert ["tenant", "id", "endpoint", "id", "name", "url", "state", "lane"] == table[0].split()
    url = "https://receiver.example/hook"
    assert [["globex", second, "-", url, "healthy", "free"], ["acme", first, "a\\x1b[2Jb", url, "healthy", "free"]] == [
        line.split() for line in table[1:]
    ]
    assert "\nmore: --cursor " in (await begun.run("endpoint", "list", "--limit", "1")).out
    shown = (await begun.run("endpoint", "show", *options_of(first))).out.splitlines()
    assert [["state", "healthy"], ["name", "a\\x1b[2Jb"]] == [line.split() for line in shown[2:4]]
    assert ["enabled", "yes"] == shown[6].split()
    assert ["lane", "free"] in [line.split() for line in shown]


@pytest.mark.req("DEL-09")
async def test_a_crowded_or_held_endpoint_is_reported(begun: Begun) -> None:
    """`list` and `show` say if the lane of an endpoint is crowded, or held, which comes first."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    for table, waiting_for in (("lanes", "rate"), ("held_endpoints", "breaker")):
        await begun.stored.pool.execute(
            f"INSERT INTO hookseal.{table} (tenant_id, endpoint_id, waiting_for)"  # noqa: S608 -- ours
            " SELECT tenant_id, id, $1 FROM hookseal.endpoints",
            waiting_for,
        )
        listed = (await begun.run("endpoint", "list", "--json")).json["items"][0]
        shown = (await begun.run("endpoint", "show", *options_of(endpoint), "--json")).json
        assert waiting_for == listed["lane"] == shown["lane"]


@pytest.mark.req("DEL-20")
async def test_the_state_is_that_of_the_statistics(begun: Begun) -> None:
    """`list`, `show` and `stats` have one state for an endpoint: the first of these that is true."""
    ordered = NewEndpoint(tenant_id=TenantId("acme"), url="https://e.example", event_types=("*",), ordered=True)
    endpoint, pool = (await begun.stored.add(ordered)).pointer.endpoint_id, begun.stored.pool
    await begun.stored.deliveries()
    for state, change in (
        ("healthy", "SELECT"),
        ("failing", "UPDATE hookseal.endpoints SET first_failure_at = now()"),
        ("stopped", "UPDATE hookseal.deliveries SET state = 'dead_letter', next_attempt_at = NULL"),
        ("held", HELD),
        ("disabled", "UPDATE hookseal.endpoints SET enabled = false"),
    ):
        await pool.execute(change)
        [listed] = (await begun.run("endpoint", "list", "--json")).json["items"]
        shown = (await begun.run("endpoint", "show", *options_of(endpoint), "--json")).json
        [counted] = (await begun.run("endpoint", "stats", "--tenant", "acme", "--json")).json["items"]
        assert (state, state, state) == (listed["state"], shown["state"], counted["state"])


async def test_the_text_shows_the_schedule(begun: Begun) -> None:
    """The text has the waits of a schedule as the option takes them, without the settings that it replaces."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    changed = await begun.run("endpoint", "update", *options_of(endpoint), "--retry-schedule", "5s,2m")
    assert 0 == changed.code, changed.err
    shown = (await begun.run("endpoint", "show", *options_of(endpoint))).out
    facts = dict(line.split("  ", 1) for line in shown.splitlines())
    assert ("5s,2m", "3") == (facts["retry schedule"].strip(), facts["attempts allowed"].strip())
    assert set() == {"max attempts", "backoff base seconds", "backoff cap seconds"} & facts.keys()


async def test_each_filter_selects_and_the_cursor_lists_all(begun: Begun) -> None:
    """Each filter selects what it names; following the cursor lists every endpoint once, newest first."""
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
async def test_another_tenants_endpoint_is_not_found(begun: Begun) -> None:
    """For another tenant's endpoint the answer is the same as for one that does not exist."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    others = await begun.run("endpoint", "show", *options_of(endpoint, "globex"), "--json")
    unknown = await begun.run("endpoint", "show", *options_of(UNKNOWN), "--json")
    assert (3, "endpoint") == (others.code, others.json["error"]["field"])
    assert (3, others.out) == (unknown.code, unknown.out)


@pytest.mark.req("OPS-10")
async def test_read_rights_suffice(begun: Begun) -> None:
    """Read rights on the database are sufficient, and nothing is changed."""
    pool, database_url = begun.stored.pool, begun.settings["DATABASE_URL"]
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    (ring,) = await begun.stored.deliveries()
    async with login(pool, database_url, "hookseal_readonly") as (_, url):
        for arguments in (
            ("endpoint", "list"),
            ("endpoint", "show", *options_of(endpoint)),
            ("delivery", "list"),
            ("delivery", "show", ring.delivery_id),
            ("secret", "versions", *options_of(endpoint)),
            ("producer", "list"),
        ):
            ended = await hookseal(*arguments, "--json", DATABASE_URL=url)
            assert (0, "") == (ended.code, ended.err), ended.out
        full = {"DATABASE_URL": url, "SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": MASTER_KEY_TEXT}
        refused = await hookseal("endpoint", "disable", *options_of(endpoint), "--json", **full)
        assert 5 == refused.code
    assert await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("list", "--tenant", "_system"), "tenant"),
        (("list", "--limit", "many"), "limit"),
        (("show", *options_of("x")), "endpoint"),
        (("show", *options_of(UNKNOWN.upper())), "endpoint"),
        (("show", *options_of(UNKNOWN, "ac me")), "tenant"),
        (("show", "--tenant", "acme"), "endpoint"),
    ],
)
async def test_a_malformed_value_names_its_field(arguments: tuple[str, ...], field: str) -> None:
    """Each kind of bad value exits 2 with its field, before a database is contacted."""
    ended = await hookseal("endpoint", *arguments, "--json", DATABASE_URL="postgresql://127.0.0.1:1/db")
    assert (2, field) == (ended.code, ended.json["error"]["field"])


async def test_an_invalid_page_names_its_field(begun: Begun) -> None:
    """A page size out of range and an invalid cursor exit 2 with their field."""
    for options, field in ((("--limit", "0"), "limit"), (("--limit", "1001"), "limit"), (("--cursor", "!"), "cursor")):
        ended = await begun.run("endpoint", "list", *options, "--json")
        assert (2, field) == (ended.code, ended.json["error"]["field"])


@pytest.mark.parametrize("arguments", [("list",), ("show", *options_of(UNKNOWN))])
async def test_a_missing_database_or_schema_is_named(arguments: tuple[str, ...], empty_database_url: str) -> None:
    """Without a schema the error names the command that creates it; without an answer it names the address."""
    empty = await hookseal("endpoint", *arguments, "--json", DATABASE_URL=empty_database_url)
    assert 78 == empty.code
    port = closed_port()
    dead = await hookseal("endpoint", *arguments, "--json", DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/db")
    assert 69 == dead.code
    assert f"PostgreSQL at 127.0.0.1:{port}" in dead.json["error"]["message"]


@pytest.mark.parametrize("command", ["list", "show", "update", "enable", "disable", "delete"])
async def test_help_has_an_example(command: str) -> None:
    """The help has an example."""
    assert f"Example: hookseal endpoint {command}" in (await hookseal("endpoint", command, "--help")).out
