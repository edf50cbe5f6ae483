"""`hookseal endpoint update`, `enable`, `disable` and `delete` change what was asked, and report whether they did."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests import rows
from tests.cli.command import on_a_terminal
from tests.cli.installation import Begun, options_of
from tests.doubles.logbook import audited

pytestmark = pytest.mark.timeout(300)  # runs many commands one after the other


async def endpoint(begun: Begun) -> str:
    """Add an endpoint and return its id."""
    return (await begun.stored.endpoint()).pointer.endpoint_id


async def row(begun: Begun) -> Any:
    """Return the one endpoint."""
    return await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints")


@pytest.mark.req("OPS-04", part="json")
async def test_an_update_changes_only_the_given_fields(begun: Begun) -> None:
    """Only the given fields change; the answer names the changed fields and the generation."""
    one = await endpoint(begun)
    options = (
        *("--url", "https://other.example/new", "--lead", "current", "--name", "Büro", "--timeout-ms", "8000"),
        *("--event-type", "invoice.*", "--event-type", "user.created", "--retry-schedule", "5s,5m"),
    )
    ended = await begun.run("endpoint", "update", *options_of(one), *options, "--expect-generation", "1", "--json")
    assert (0, "") == (ended.code, ended.err)
    named = ["url", "event_types", "name", "timeout_ms", "retry_schedule", "lead"]
    assert {"tenant_id": "acme", "endpoint_id": one, "generation": 2, "changed": named, "dropped": []} == ended.json
    found = await row(begun)
    assert ("https://other.example/new", "current", "Büro", 8_000) == tuple(
        found[name] for name in ("url", "lead", "name", "timeout_ms")
    )
    assert (["invoice.*", "user.created"], [5, 300], 10) == tuple(
        found[name] for name in ("event_types", "retry_schedule", "max_attempts")
    )

    backoff = ("--retry-schedule", "none", "--max-attempts", "3")
    text = await begun.run("endpoint", "update", *options_of(one), *backoff)
    lines = [f"endpoint {one} is changed; generation 2", "retry_schedule: 5 300 -> -", "max_attempts: 10 -> 3"]
    assert (0, sorted(lines)) == (text.code, sorted(text.out.splitlines()))
    found = await row(begun)
    assert (None, 3, 2) == (found["retry_schedule"], found["max_attempts"], found["generation"])
    same = await begun.run("endpoint", "update", *options_of(one), "--max-attempts", "3")
    assert (0, f"endpoint {one} has these settings already: nothing was changed\n") == (same.code, same.out)
    assert 0 == (await begun.run("endpoint", "update", *options_of(one), "--retry-schedule", "default")).code
    assert list(DEFAULT_RETRY_SCHEDULE) == (await row(begun))["retry_schedule"]
    assert 4 == len(await audited(begun.stored.pool))


async def test_what_the_product_keeps_is_set_and_removed(begun: Begun) -> None:
    """Uid, description and metadata are options of both commands; the text shows them, and what was changed."""
    add = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/", "--event-type", "*", "--json")
    given = ("--uid", "crm-7", "--description", "for Jane", "--metadata", "a=1=2", "--metadata", "b=")
    one = (await begun.run(*add, *given)).json["endpoint_id"]
    shown = (await begun.run("endpoint", "show", *options_of(one))).out
    facts = dict(line.split("  ", 1) for line in shown.splitlines())
    assert ["crm-7", "for Jane", "a=1=2 b="] == [facts[name].strip() for name in ("uid", "description", "metadata")]

    assert shown == (await begun.run("endpoint", "show", "--tenant", "acme", "--uid", "crm-7")).out

    ended = await begun.run("endpoint", "update", *options_of(one), "--metadata", "c=3", "--description", "")
    assert ["description: for Jane -> -", "metadata: a=1=2 b= -> c=3"] == ended.out.splitlines()[1:]
    await begun.run("endpoint", "update", *options_of(one), "--remove-uid", "--remove-metadata")
    found = await row(begun)
    assert (None, "", "{}") == (found["uid"], found["description"], found["metadata"])


@pytest.mark.req("DEL-10")
async def test_lane_limits_are_set_and_removed(begun: Begun) -> None:
    """Concurrency and rate are set, and removed by `none`; each change is audited."""
    one = await endpoint(begun)
    limits = await begun.run("endpoint", "update", *options_of(one), "--concurrency", "5", "--rate", "20/s")
    assert (0, ["concurrency: - -> 5", "rate: - -> 20"]) == (limits.code, sorted(limits.out.splitlines()[1:]))
    await begun.run("endpoint", "update", *options_of(one), "--concurrency", "none")
    found = await row(begun)
    assert (None, 20) == (found["concurrency"], found["rate"])
    assert 3 == len(await audited(begun.stored.pool))


@pytest.mark.req("OPS-04", part="json")
async def test_disable_and_enable_report_their_change(begun: Begun) -> None:
    """Each reports the state and whether it changed it; repeating it is no error."""
    one = await endpoint(begun)
    await begun.stored.deliveries()
    asked = ("endpoint", "disable", *options_of(one), "--json", "--reason")
    shape = {"tenant_id": "acme", "endpoint_id": one, "enabled": False, "disabled_reason": "moves", "changed": True}
    assert shape == (await begun.run(*asked, "moves")).json
    again = await begun.run(*asked, "other")
    assert (0, shape | {"changed": False}) == (again.code, again.json)
    await begun.stored.deliveries()
    assert 1 == (await begun.run("endpoint", "show", *options_of(one), "--json")).json["waiting_deliveries"]

    enabled = await begun.run("endpoint", "enable", *options_of(one), "--json")
    named = {"tenant_id": "acme", "endpoint_id": one, "enabled": True}
    shape = named | {"changed": True, "woken": 1, "in_line": 0, "line_head": None, "probed": False, "replay": None}
    assert shape == enabled.json
    again = await begun.run("endpoint", "enable", *options_of(one), "--json")
    assert (0, shape | {"changed": False, "woken": 0}) == (again.code, again.json)
    actions = [entry["action"] for entry in await audited(begun.stored.pool)]
    assert ["endpoint.added", "endpoint.disabled", "endpoint.enabled"] == actions


async def test_the_text_reports_the_result(begun: Begun) -> None:
    """The text reports the result in one line."""
    one = await endpoint(begun)
    for command, message in (
        ("enable", "was enabled already: nothing was changed"),
        ("disable", "is disabled"),
        ("disable", "was disabled already (disabled by an operator): nothing was changed"),
        ("enable", "is enabled; held deliveries that are released: 0"),
        ("delete", "is deleted; pending deliveries cancelled: 0"),
    ):
        ended = await begun.run("endpoint", command, *options_of(one), *(("--yes",) if command == "delete" else ()))
        assert (0, f"endpoint {one} {message}\n", "") == (ended.code, ended.out, ended.err)


@pytest.mark.req("DEL-17")
async def test_enabling_says_what_waits_in_line(begun: Begun) -> None:
    """Of an ordered endpoint it says which delivery is released, and how many wait behind it."""
    ordered = NewEndpoint(
        tenant_id=TenantId("acme"), url="https://e.example", event_types=("*",), settings={"ordered": True}
    )
    one = (await begun.stored.add(ordered)).pointer.endpoint_id
    await begun.run("endpoint", "disable", *options_of(one))
    [head, _, _] = [(await begun.stored.deliveries())[0].delivery_id for _ in range(3)]
    ended = await begun.run("endpoint", "enable", *options_of(one))

    message = f"held deliveries that are released: 1; that wait in line behind delivery {head}: 2"
    assert (0, f"endpoint {one} is enabled; {message}\n") == (ended.code, ended.out)


async def test_enabling_again_probes_held_deliveries(begun: Begun) -> None:
    """An enabled endpoint that is held is not said to be unchanged: its oldest delivery is tried now."""
    one = await endpoint(begun)
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for) "
        "VALUES ('acme', $1::text::uuid, 'breaker')",
        one,
    )
    ended = await begun.run("endpoint", "enable", *options_of(one))

    message = "was enabled already; its deliveries are held, and the oldest of them is tried now"
    assert (0, f"endpoint {one} {message}\n") == (ended.code, ended.out)


@pytest.mark.req("OPS-04", part="json")
async def test_a_deleted_endpoint_keeps_its_deliveries(begun: Begun) -> None:
    """The deliveries stay on record, and the deleted endpoint is not found."""
    one = await endpoint(begun)
    (ring,) = await begun.stored.deliveries()
    shape = {"tenant_id": "acme", "endpoint_id": one, "deleted": True, "cancelled": 1}
    ended = await begun.run("endpoint", "delete", *options_of(one), "--yes", "--json")
    assert (0, shape) == (ended.code, ended.json)
    shown = (await begun.run("delivery", "show", ring.delivery_id, "--json")).json
    assert ("cancelled", "the endpoint was deleted") == (shown["state"], shown["last_error"])
    versions = (await begun.run("secret", "versions", *options_of(one), "--json")).json["items"]
    assert [("retired", False)] == [(version["state"], version["signs"]) for version in versions]
    for command in ("delete", "enable", "disable", "show"):
        gone = await begun.run(
            "endpoint", command, *options_of(one), "--json", *(("--yes",) if command == "delete" else ())
        )
        assert (3, "endpoint") == (gone.code, gone.json["error"]["field"])


async def test_deletion_without_a_terminal_needs_yes(begun: Begun) -> None:
    """Without a terminal, deletion needs `--yes`."""
    one = await endpoint(begun)
    ended = await begun.run("endpoint", "delete", *options_of(one), "--json")

    assert (2, "yes") == (ended.code, ended.json["error"]["field"])
    assert 1 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


@pytest.mark.parametrize(
    ("typed", "options", "code", "left"), [("n\n", (), 1, 1), ("y\n", (), 0, 0), ("", ("--yes",), 0, 0)]
)
async def test_deletion_on_a_terminal_asks(
    begun: Begun, typed: str, options: tuple[str, ...], code: int, left: int
) -> None:
    """On a terminal, deletion asks for confirmation, except with `--yes`."""
    one = await endpoint(begun)
    delete = ("endpoint", "delete", *options_of(one), *options)
    ended = await on_a_terminal(*delete, stream="stdin", typed=typed, **begun.settings)

    assert (code, code == 1) == (ended.code, "nothing was deleted" in ended.out)
    assert left == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


@pytest.mark.req("DEL-07", part="retry")
@pytest.mark.req("OPS-04", part="json")
async def test_a_retry_says_how_many_are_due(begun: Begun) -> None:
    """And how many wait with the others; progress goes to standard error. A batch has at most 1,000 deliveries."""
    one, pool = await endpoint(begun), begun.stored.pool
    nothing = await begun.run("endpoint", "retry", *options_of(one))
    assert (0, f"endpoint {one}: no delivery waits for its next attempt\n") == (nothing.code, nothing.out)
    await rows.publish(pool, 1_001)
    await rows.change(pool, "deliveries", next_attempt_at=rows.ahead(hours=1))
    ended = await begun.run("endpoint", "retry", *options_of(one), "--json")
    assert {"tenant_id": "acme", "endpoint_id": one, "due": 1_001, "held": 0} == ended.json
    assert "hookseal: deliveries to try now: 1001\n" == ended.err
    assert [1_000, 1] == [entry["after"]["due"] for entry in (await audited(pool))[-2:]]
    await rows.change(pool, "deliveries", next_attempt_at=rows.ahead(hours=1))
    await rows.hold(pool, one, waiting_for="breaker")
    text = (await begun.run("endpoint", "retry", *options_of(one))).out.splitlines()
    assert [
        f"endpoint {one}: 0 deliveries are due now",
        "1001 deliveries wait with the others of the endpoint; to see for what, run",
        f"  hookseal endpoint show --tenant acme --endpoint {one}",
    ] == text


@pytest.mark.req("UX-02")
async def test_durations_have_units(begun: Begun) -> None:
    """An option with a duration takes a unit; a number without one has the unit that its old name says."""
    one = await endpoint(begun)
    for options, expected in (
        (("--timeout", "8s"), (8_000, 30, 43_200, None)),
        (("--timeout-ms", "500"), (500, 30, 43_200, None)),
        (("--timeout", "750ms", "--rotate-every", "7d"), (750, 30, 43_200, 7)),
        (("--retry-schedule", "none", "--backoff-base", "1m", "--backoff-cap", "2h"), (750, 60, 7_200, 7)),
        (("--backoff-base-seconds", "5", "--rotate-every", "30"), (750, 5, 7_200, 30)),
        (("--rotate-every", "none"), (750, 5, 7_200, None)),
    ):
        ended = await begun.run("endpoint", "update", *options_of(one), *options)
        assert 0 == ended.code, ended.err
        found = await row(begun)
        names = ("timeout_ms", "backoff_base_seconds", "backoff_cap_seconds", "rotate_every_days")
        assert expected == tuple(found[name] for name in names), options
    rotated = await begun.run("endpoint", "rotate", *options_of(one), "--overlap", "36h", "--json")
    until = datetime.fromisoformat(rotated.json["previous_secret_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=35, minutes=50) < until <= timedelta(hours=36)
