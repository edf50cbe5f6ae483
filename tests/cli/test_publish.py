"""`hookseal publish` stores an event with its deliveries, and rings if Redis is available."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from hookseal.dispatcher.store import event_types
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.ground.wire import MAX_BODY_BYTES
from tests.cli.command import Ended
from tests.cli.installation import Begun
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port, seconds_from

PUBLISH = ("publish", "--tenant", "acme", "--event-type", "invoice.paid")
NO_WORKER = "hookseal: the event is stored, but no worker is running: it is delivered when you start `hookseal worker`"


async def body(begun: Begun, ended: Ended) -> bytes:
    """Return the stored body of the published event."""
    assert (0, "") == (ended.code, ended.err)
    stored: bytes = await begun.stored.pool.fetchval(
        "SELECT body FROM hookseal.events WHERE id = $1", ended.json["event_id"]
    )
    return stored


@pytest.mark.req("OPS-04", part="json")
@pytest.mark.req("DEL-01")
async def test_each_subscriber_has_one_rung_delivery(begun: Begun) -> None:
    """Each endpoint that subscribes has one delivery, and each delivery was rung."""
    endpoints = {
        (await begun.stored.endpoint(url=url)).pointer.endpoint_id
        for url in ("https://a.example/", "https://b.example/")
    }
    ended = await begun.run(*PUBLISH, "--data", '{"id": 1}', "--correlation-id", "order-7", "--json")
    assert (0, f"{NO_WORKER}\n") == (ended.code, ended.err)
    assert {"event_id", "duplicate", "deliveries", "matched", "did_you_mean"} == ended.json.keys()
    assert (True, None) == (ended.json["matched"], ended.json["did_you_mean"])
    assert ended.json["duplicate"] is False
    assert all({"delivery_id", "endpoint_id"} == delivery.keys() for delivery in ended.json["deliveries"])
    assert endpoints == {delivery["endpoint_id"] for delivery in ended.json["deliveries"]}
    async with Redis.from_url(begun.settings["REDIS_URL"]) as redis:
        rung = await redis.zrange("hookseal:deliveries", 0, -1)
    assert {delivery["delivery_id"].encode() for delivery in ended.json["deliveries"]} == set(rung)
    correlation = await begun.stored.pool.fetchval("SELECT correlation_id FROM hookseal.events")
    assert "order-7" == correlation

    await begun.stored.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids, beaten_at)"
        " VALUES ('w-1', '1', 25, 45, '{}', now())"
    )
    ended = await begun.run(*PUBLISH, "--data", "2", "--json")
    assert (0, "", 2) == (ended.code, ended.err, len(ended.json["deliveries"])), "it warns although a worker lives"


async def test_channels_select_endpoints(begun: Begun) -> None:
    """The event goes to endpoints that share a channel, which `endpoint add` gave them, or that have none."""
    add = ("endpoint", "add", "--tenant", "acme", "--event-type", "*", "--json")
    everyone = (await begun.run(*add, "--url", "https://a.example/")).json["endpoint_id"]
    of_a = (await begun.run(*add, "--url", "https://b.example/", "--channel", "a", "--channel", "b")).json[
        "endpoint_id"
    ]
    for channels, expected in (
        (("--channel", "c", "--channel", "a"), {everyone, of_a}),
        (("--channel", "c"), {everyone}),
    ):
        ended = await begun.run(*PUBLISH, "--data", "1", *channels, "--json")
        assert expected == {each["endpoint_id"] for each in ended.json["deliveries"]}
    ended = await begun.run(*PUBLISH, "--data", "1", "--channel", "c", "--json")
    shown = await begun.run("event", "show", ended.json["event_id"], "--tenant", "acme", "--json")
    assert ["c"] == shown.json["channels"]

    of = ("--tenant", "acme", "--endpoint", of_a)
    await begun.run("endpoint", "update", *of, "--channel", "c")
    assert 2 == len((await begun.run(*PUBLISH, "--data", "1", "--channel", "c", "--json")).json["deliveries"])
    removed = await begun.run("endpoint", "update", *of, "--remove-channels")
    assert "channels: c -> -" in removed.out
    assert 2 == len((await begun.run(*PUBLISH, "--data", "1", "--json")).json["deliveries"])


async def test_a_payload_has_three_sources(begun: Begun, tmp_path: Path) -> None:
    """JSON comes from the argument, a file or standard input and is wrapped unchanged; raw bytes are not wrapped."""
    data, raw = tmp_path / "data.json", tmp_path / "raw"
    data.write_text('{"b": 1.0, "a": "é"}', encoding="utf-8")
    raw.write_bytes(b"\x00\xff raw \n")
    wrapped = '"data":{"b": 1.0, "a": "é"}}'.encode()

    assert (await body(begun, await begun.run(*PUBLISH, "--data", data.read_text(), "--json"))).endswith(wrapped)
    assert (await body(begun, await begun.run(*PUBLISH, "--file", str(data), "--json"))).endswith(wrapped)
    from_stdin = await begun.fed(data.read_bytes(), *PUBLISH, "--file", "-", "--json")
    assert (await body(begun, from_stdin)).endswith(wrapped)
    assert raw.read_bytes() == await body(begun, await begun.run(*PUBLISH, "--raw-file", str(raw), "--json"))
    raw_from_stdin = await begun.fed(raw.read_bytes(), *PUBLISH, "--raw-file", "-", "--json")
    assert raw.read_bytes() == await body(begun, raw_from_stdin)


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_refused_data_is_not_stored(begun: Begun) -> None:
    """Invalid JSON and a body that is too large exit 2 with what is wrong; nothing is stored."""
    nan = "data.price must be a finite number: JSON has no NaN and no infinity: give null (None)"
    for options, given, field, message in (
        (("--data", '{"price": NaN}'), b"", "data", nan),
        (("--file", "-"), b'{"price": NaN}', "data", nan),
        (("--file", "-"), '"é"'.encode("latin-1"), "data", "UTF-8"),
        (("--data", "{'id': 1}"), b"", "data", "JSON"),
        (("--file", "-"), b'"' + b"x" * (MAX_BODY_BYTES - 10) + b'"', "body", str(MAX_BODY_BYTES)),  # with its wrapping
        (("--raw-file", "-"), b"x" * (MAX_BODY_BYTES + 1), "body", str(MAX_BODY_BYTES)),
    ):
        ended = await begun.fed(given, *PUBLISH, *options, "--json")
        error = ended.json["error"]
        assert (2, field, True) == (ended.code, error["field"], message in error["message"]), error
    assert 0 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.events")
    fits = await begun.fed(b"x" * MAX_BODY_BYTES, *PUBLISH, "--raw-file", "-", "--json")
    assert MAX_BODY_BYTES == len(await body(begun, fits))


@pytest.mark.req("DEL-01")
async def test_a_repeat_returns_the_first_answer(begun: Begun) -> None:
    """A repeat returns the first answer; the same id with other data is a conflict."""
    await begun.stored.endpoint()
    first = await begun.run(*PUBLISH, "--event-id", "evt-1", "--data", '{"id": 1}', "--json")
    again = await begun.run(*PUBLISH, "--event-id", "evt-1", "--data", '{"id": 1}', "--json")
    assert (0, first.json | {"duplicate": True}) == (again.code, again.json)
    assert "evt-1" == first.json["event_id"]
    other = await begun.run(*PUBLISH, "--event-id", "evt-1", "--data", '{"id": 2}', "--json")
    assert (4, "event_id") == (other.code, other.json["error"]["field"])
    shown = await begun.run(*PUBLISH, "--event-id", "evt-1", "--data", '{"id": 1}')
    delivery = first.json["deliveries"][0]["delivery_id"]
    assert f"event     evt-1 (published before: nothing was changed)\ndelivery  {delivery}\n" == shown.out


@pytest.mark.req("DEL-01")
async def test_an_event_without_subscribers_is_stored(begun: Begun) -> None:
    """Without a subscriber, also for an unknown tenant, the event is stored without deliveries."""
    await begun.stored.endpoint("globex")
    for tenant in ("acme", "never-seen"):
        ended = await begun.run(*PUBLISH, "--tenant", tenant, "--data", "{}", "--json")
        assert (0, []) == (ended.code, ended.json["deliveries"])
    assert 2 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.events")
    shown = await begun.run(*PUBLISH, "--data", "{}")
    assert shown.out.endswith("no endpoint of tenant acme subscribes to invoice.paid: nothing is sent\n")


@pytest.mark.req("UX-03")
async def test_a_type_that_nobody_gets_may_be_a_slip(begun: Begun) -> None:
    """The type of the catalogue that is nearly the published one is named, unless it is one, or is archived."""
    for name, archived in (("invoice.paid", False), ("invoice.void", False), ("zz.qqq", True)):
        given = CataloguedType(name=name, description="", schemas=None, deprecated=False, archived=archived)
        async with begun.stored.pool.acquire() as connection:
            await event_types.add(connection, given)

    async def published(event_type: str) -> tuple[bool, str | None]:
        options = ("--tenant", "acme", "--event-type", event_type, "--data", "{}", "--json")
        ended = await begun.run("publish", *options)
        return ended.json["matched"], ended.json["did_you_mean"]

    assert (False, "invoice.paid") == await published("invoce.paid")
    assert (False, None) == await published("invoice.void")
    assert (False, None) == await published("zz.qq")
    shown = await begun.run("publish", "--tenant", "acme", "--event-type", "invoice.piad", "--data", "{}")
    assert shown.out.endswith("nothing is sent\nDid you mean invoice.paid?\n")
    await begun.stored.endpoint()
    assert (True, None) == await published("invoce.paid")


async def test_a_type_behind_a_thousand_others_is_none_to_correct(begun: Begun) -> None:
    """Only the first 1,000 names are compared; a type behind them is in the catalogue all the same."""
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.event_types (name, description, deprecated, archived)"
        " SELECT 'invoice.paid' || lpad(number::text, 4, '0'), '', false, false FROM generate_series(1, 1001) AS number"
    )
    async with begun.stored.pool.acquire() as connection:
        assert await event_types.near(connection, "invoice.paid1001") is None
        assert await event_types.near(connection, "invoice.paid1002") is not None


async def test_without_redis_the_event_is_stored(begun: Begun) -> None:
    """Without Redis, absent or silent, the event is still stored within seconds, and the lost ring is reported."""
    await begun.stored.endpoint()
    async with black_hole() as (hole, called):
        for port in (closed_port(), hole):
            url = f"redis://:hunter2@127.0.0.1:{port}/0"
            publishing = begun.run(*PUBLISH, "--data", "{}", "--json", REDIS_URL=url)
            ended, seconds = await seconds_from(called, publishing)
            assert seconds < SOON_SECONDS
            assert (0, 1) == (ended.code, len(ended.json["deliveries"]))
            assert ended.err.startswith(
                "hookseal: the event is stored, but the workers were not notified through Redis"
            )
            assert f" at 127.0.0.1:{port}: " in ended.err
            assert "hunter2" not in ended.out + ended.err
    assert 2 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'")
