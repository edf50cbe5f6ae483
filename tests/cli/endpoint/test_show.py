"""`hookseal endpoint list` and `show` show everything of endpoints except secrets, with read-only rights."""

from datetime import UTC, datetime

import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from tests import rows
from tests.cli.installation import Begun, options_of

pytestmark = pytest.mark.timeout(300)  # runs many commands one after the other


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
    times = {name: shown.pop(name) for name in ("created_at", "updated_at", "secret_updated_at", "waiting_since")}
    assert all(time.endswith("Z") for time in times.values())
    assert {
        "tenant_id": "acme",
        "endpoint_id": pointer.endpoint_id,
        "uid": None,
        "state": "healthy",
        "state_since": None,
        "name": None,
        "description": "",
        "metadata": {},
        "url": "https://receiver.example/hook",
        "event_types": ["*"],
        "channels": [],
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
        "lane_since": None,
        "next_probe_at": None,
        "last_failure": None,
    } == shown


async def test_the_text_shows_the_last_failure(begun: Begun) -> None:
    """The text names the last failed attempt with its delivery."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    [ring] = await begun.stored.deliveries()
    at = datetime(2026, 3, 1, 12, 2, tzinfo=UTC)
    await rows.attempt(begun.stored.pool, ring.delivery_id, started_at=at, outcome="client_error", status=404)
    text = (await begun.run("endpoint", "show", *options_of(endpoint))).out
    assert f"2026-03-01T12:02:00.000Z 404 (client_error), delivery {ring.delivery_id}" in text


async def test_plaintext_is_reported_and_not_shown(begun: Begun) -> None:
    """A plaintext secret of an older system is reported as present, and not shown."""
    of = options_of((await begun.stored.endpoint()).pointer.endpoint_id)
    await rows.change(begun.stored.pool, "endpoints", secret="hunter2hunter2hunter2")
    commands = (("list",), ("list", "--json"), ("show", *of), ("show", *of, "--json"))
    ends = [await begun.run("endpoint", *arguments) for arguments in commands]
    assert [(0, False)] * 4 == [(ended.code, "hunter2" in ended.out + ended.err) for ended in ends]
    assert ends[-1].json["has_plaintext"]


async def test_the_text_cannot_control_the_terminal(begun: Begun) -> None:
    """The text has facts, a table and a note on further pages; values cannot control the terminal."""
    assert "no endpoints\n" == (await begun.run("endpoint", "list")).out
    first = (await begun.stored.endpoint()).pointer.endpoint_id
    second = (await begun.stored.endpoint("globex")).pointer.endpoint_id
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET name = E'a\\x1b[2Jb' WHERE tenant_id = 'acme'")
    table = (await begun.run("endpoint", "list")).out.splitlines()
    assert ["endpoint", "id", "state", "waits", "for", "since", "tenant", "id", "name", "url"] == table[0].split()
    url = "https://receiver.example/hook"
    assert [
        [second, "healthy", "-", "-", "globex", "-", url],
        [first, "healthy", "-", "-", "acme", "a\\x1b[2Jb", url],
    ] == [line.split() for line in table[1:]]
    assert "\nmore: --cursor " in (await begun.run("endpoint", "list", "--limit", "1")).out
    shown = (await begun.run("endpoint", "show", *options_of(first))).out.splitlines()
    lines = [line.split() for line in shown]
    assert [["uid", "-"], ["state", "healthy"], ["state", "since", "-"], ["name", "a\\x1b[2Jb"]] == lines[2:6]
    assert ["enabled", "yes"] in lines
    assert ["waits", "for", "nothing"] in lines
    assert ["rate", "no", "limit"] in lines
    assert ["concurrency", "that", "of", "HOOKSEAL_ENDPOINT_CONCURRENCY,"] in [line[:4] for line in lines]


async def test_the_text_shows_the_schedule(begun: Begun) -> None:
    """The text has the waits of a schedule as the option takes them, without the settings that it replaces."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    changed = await begun.run("endpoint", "update", *options_of(endpoint), "--retry-schedule", "5s,2m")
    assert 0 == changed.code, changed.err
    shown = (await begun.run("endpoint", "show", *options_of(endpoint))).out
    facts = dict(line.split("  ", 1) for line in shown.splitlines())
    assert ("5s,2m", "3") == (facts["retry schedule"].strip(), facts["attempts allowed"].strip())
    assert set() == {"max attempts", "backoff base seconds", "backoff cap seconds"} & facts.keys()


async def test_each_option_of_list_is_a_filter(begun: Begun) -> None:
    """Tenant, state and page select endpoints; which ones, `tests/dispatcher` proves."""
    pool = begun.stored.pool
    on, off, other = [await rows.endpoint(pool, tenant) for tenant in ("acme", "acme", "globex")]
    await rows.change(pool, "endpoints", off, enabled=False)
    for options, expected in (
        (("--tenant", "acme"), {on, off}),
        (("--disabled",), {off}),
        (("--enabled",), {on, other}),
    ):
        page = (await begun.run("endpoint", "list", *options, "--json")).json
        assert (expected, None) == ({item["endpoint_id"] for item in page["items"]}, page["next_cursor"])
    for order, expected_order in (((), [other, off, on]), (("--oldest-first",), [on, off, other])):
        page = (await begun.run("endpoint", "list", *order, "--json")).json
        assert expected_order == [item["endpoint_id"] for item in page["items"]]
    cursor = (await begun.run("endpoint", "list", "--limit", "2", "--json")).json["next_cursor"]
    assert 1 == len((await begun.run("endpoint", "list", "--cursor", cursor, "--json")).json["items"])
