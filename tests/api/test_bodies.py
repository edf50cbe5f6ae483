"""What a body and a query may be, and what the answer names when they are not."""

import asyncio
from typing import Any, Literal

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Message

from hookseal.admin import Scope
from hookseal.api.bodies import Bodies, Shape, place, renamed, require_json
from hookseal.api.call import In
from hookseal.api.paging import Limit, Moment
from hookseal.api.problems import Problem
from hookseal.dispatcher.core.payload import MOST_LEVELS


class Given(In):
    """A body and a query of a test."""

    url: str
    rate: int | None = None
    version: Literal[1] | None = None
    event_types: list[str] | None = None
    metadata: dict[str, str] | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    rate_limit: None = None
    group_name: msgspec.UnsetType | None = msgspec.UNSET
    scopes: list[Scope] | None = None


class Asked(In):
    """A query of a test."""

    limit: Limit = 50
    with_content: bool = msgspec.field(name="with_content", default=True)
    event_types: list[str] | None = msgspec.field(name="event_types", default=None)
    status: Literal[0, 1, 2] | None = None
    before: Moment | None = None


BODY = Shape(Given)
QUERY = Shape(Asked)
LONE = "contains a lone surrogate, which is not a character"


def refused(call: Any, *arguments: Any) -> tuple[list[str], str, str]:
    """Return where, why and of which type a request is wrong."""
    with pytest.raises(Problem) as caught:
        call(*arguments)
    assert 422 == caught.value.status
    [detail] = msgspec.json.decode(caught.value.body())["detail"]
    return detail["loc"], detail["msg"], detail["type"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "is missing: send a JSON object"),
        (b"{", "is not JSON"),
        (rb'{"url": "\ud800"}', LONE),
        (rb'{"url": "a", "payload": {"\uDC00": 1}}', LONE),
        (rb'{"url": "a", "payload": ["\\\ud83d\n\ude00"]}', LONE),
        (rb'{"url": "\\ud800 \ud83d\ude00", "payload": [}', "is not JSON"),
        (b'{"url": "a"} x', "is not JSON"),
        (b'{"url": NaN}', "is not JSON"),
        (b'{"url": -Infinity}', "is not JSON"),
        (b'{"url": "a", "payload": {"x": Infinity}}', "is not JSON"),
        (b'{"url": "\n"}', "is not JSON"),
        (b'{"url": 01}', "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        ('{"url": "a"}'.encode("utf-16"), "must be in UTF-8"),
        (b'{"url": "a", "payload": {"x": "\xff"}}', "must be in UTF-8"),
        (b'{"url": "a", "payload": {"x": "\xed\xa0\x80"}}', "must be in UTF-8"),
        (b'{"url": "a", "url": "b"}', "has an object with a member twice"),
        (b'{"url": "a", "payload": {"x": [{"y": 1, "y": 1}]}}', "has an object with a member twice"),
        (b'{"url": "a", "payload": ' + b"[" * 2_000 + b"]" * 2_000 + b"}", "is nested more than 200 levels deep"),
        (b'{"url": "a", "payload": ' + b"[" * 200 + b"]" * 200 + b"}", "is nested more than 200 levels deep"),
        (b"[" * 1_000_000, "is nested more than 200 levels deep"),
        (b"[" * 201 + b'"' + b'\\"' * 500_000, "is nested more than 200 levels deep"),  # at once, not after hours
        (
            b"[" * 150 + b'"' + b"[" * 100 + b'\\"',
            "is not JSON",
        ),  # what a string has is no level, though it does not end
    ],
)
def test_a_body_that_is_no_plain_json_is_refused(body: bytes, why: str) -> None:
    assert (["body"], why, "value_error.jsondecode") == refused(BODY.decoded, body)


def test_what_only_looks_deep_is_accepted() -> None:
    require_json(b'{"x": "' + b"[{" * 1_000 + b'\\"' + b"[" * 1_000 + b'"}')
    require_json(b"[" + b",".join([b"[]"] * 10_000) + b"]")
    require_json(b"[" * MOST_LEVELS + b"]" * MOST_LEVELS)
    with pytest.raises(Problem):
        require_json(b"[" * (MOST_LEVELS + 1) + b"]" * (MOST_LEVELS + 1))


def test_a_payload_keeps_every_byte() -> None:
    payload = b'{"big": 100000000000000000000, "price":1.10,\t"b":1,"a": "\\u00e9\xc3\xa9", "e": 1E+2}'

    assert payload == bytes(BODY.decoded(b'{"url":"a", "payload":  ' + payload + b" }").payload)


@pytest.mark.req("API-07")
@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b"[]", [], "type_error"),
        (b"{}", ["url"], "value_error.missing"),
        (b'{"url": 1}', ["url"], "type_error"),
        (b'{"url": "a", "rate": "5"}', ["rate"], "type_error"),
        (b'{"url": "a", "rate": 1.5}', ["rate"], "type_error"),
        (b'{"url": "a", "rate": true}', ["rate"], "type_error"),
        (b'{"url": "a", "version": 2}', ["version"], "type_error"),
        (b'{"url": "a", "eventTypes": ["a", 1]}', ["eventTypes", "1"], "type_error"),
        (b'{"url": "a", "metadata": {"k": 1}}', ["metadata"], "type_error"),
        (b'{"url": "a", "nonsense": 1}', ["nonsense"], "value_error.extra"),
        (b'{"url": "a", "event_types": []}', ["event_types"], "value_error.extra"),
        (b'{"url": "a", "payloadRetentionPeriod": 5}', ["payloadRetentionPeriod"], "not_supported"),
        (b'{"url": "a", "transformationsParams": {}}', ["transformationsParams"], "not_supported"),
        (b'{"url": "a", "featureFlags": []}', ["featureFlags"], "not_supported"),
        (b'{"url": "a", "rateLimit": 5}', ["rateLimit"], "not_supported"),
        (b'{"url": "a", "groupName": "g"}', ["groupName"], "not_supported"),
    ],
)
def test_a_wrong_member_is_named(body: bytes, loc: list[str], kind: str) -> None:
    found, _, its_kind = refused(BODY.decoded, body)

    assert (["body", *loc], kind) == (found, its_kind)


def test_what_clients_always_send_passes() -> None:
    given = b'{"url": "a", "rate": null, "version": 1, "rateLimit": null}'

    assert Given(url="a", version=1) == BODY.decoded(given)


def test_a_query_is_read_as_clients_write_it() -> None:
    given = [("limit", "7"), ("with_content", "false"), ("event_types", "a,b"), ("event_types", "c"), ("status", "2")]

    assert Asked(limit=7, with_content=False, event_types=["a", "b", "c"], status=2) == QUERY.parameters(given)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "251")], "limit"),
        ([("limit", "x")], "limit"),
        ([("limit", "1"), ("limit", "2")], "limit"),
        ([("with_content", "yes")], "with_content"),
        ([("before", "0.5")], "before"),
        ([("before", "1770000000")], "before"),
        ([("before", "null")], "before"),
        ([("before", "2026-01-01T00:00:00")], "before"),
        ([("status", "9")], "status"),
        ([("withContent", "true")], "withContent"),
        ([("tag", "x")], "tag"),
    ],
)
def test_a_wrong_parameter_is_named(given: list[tuple[str, str]], name: str) -> None:
    assert ["query", name] == refused(QUERY.parameters, given)[0]


@pytest.mark.parametrize(
    ("call", "given", "loc", "message"),
    [
        (BODY.decoded, b'{"url": "a", "version": 2}', ["body", "version"], "must be one of 1"),
        (
            *(BODY.decoded, b'{"url": "a", "scopes": ["read", "all"]}', ["body", "scopes", "1"]),
            "must be one of read, publish, manage, operate, reveal",
        ),
        (QUERY.parameters, [("status", "9")], ["query", "status"], "must be one of 0, 1, 2"),
    ],
)
def test_a_wrong_choice_is_told_what_it_may_be(call: Any, given: Any, loc: list[str], message: str) -> None:
    assert (loc, message, "type_error") == refused(call, given)


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("overlap must be 0 to 604800 seconds", "overlap_seconds", "gracePeriodSeconds must be 0 to 604800 seconds"),
        ("rate must be 1 to 10000", "rate", "throttleRate must be 1 to 10000"),
        ("time-out must be 100 to 20000 ms", "timeout_ms", "timeoutMs must be 100 to 20000 ms"),
        ("max attempts must be 1 to 100", "max_attempts", "maxAttempts must be 1 to 100"),
        ("event type must be words", "event_types", "eventTypes must be words"),
        ("after must be an event", "after", "iterator must be an event"),
        ("body must be at most 5 bytes", "body", "payload must be at most 5 bytes"),
        ("expires_at must be a time", "expires_at", "expiresAt must be a time"),
        ("retry_schedule replaces max_attempts: give", "retry_schedule", "retrySchedule replaces maxAttempts: give"),
        ("a key of metadata must have 1 character", "metadata", "a key of metadata must have 1 character"),
        ("header x-a is given twice", "headers", "header x-a is given twice"),
        ("states must be one of dead_letter", "states", "states must be one of dead_letter"),
        ("the tenant has more", None, "the tenant has more"),
    ],
)
def test_a_message_has_the_names_of_the_request(text: str, field: str | None, expected: str) -> None:
    names = {"overlap_seconds": "gracePeriodSeconds", "rate": "throttleRate", "after": "iterator", "body": "payload"}
    members = [*names.values(), "timeoutMs", "maxAttempts", "eventTypes", "expiresAt", "retrySchedule", "metadata"]

    assert expected == renamed(text, field, names, [*members, "headers"])


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, None),
        ("with_content", ["query", "with_content"]),
        ("url", ["body", "url"]),
        ("event_types", ["body", "eventTypes"]),
        ("pace", ["body", "rate"]),
        ("limit", ["query", "limit"]),
        ("endpoint_id", ["path", "endpoint_id"]),
        ("uid", ["path", "endpoint_id"]),
        ("event_id", None),
        ("states", None),
    ],
)
def test_an_argument_of_the_admin_is_found_in_the_request(field: str | None, expected: list[str] | None) -> None:
    assert expected == place(
        field, {"pace": "rate"}, path="/app/{app_id}/{endpoint_id}", body=BODY.members, query=QUERY.members
    )


class Coming:
    """A request whose body comes as the test says."""

    def __init__(self) -> None:
        self._chunks = asyncio.Queue[bytes | None]()
        headers = [(b"content-type", b"application/json")]
        self.request = Request({"type": "http", "method": "POST", "headers": headers}, self._receive)

    def send(self, chunk: bytes | None) -> None:
        """Send a part of the body, or its end."""
        self._chunks.put_nowait(chunk)

    async def _receive(self) -> Message:
        chunk = await self._chunks.get()
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}


async def _read(bodies: Bodies, coming: Coming, of: str = "acme") -> bytes:
    async with bodies.held(coming.request, 100, of=of) as body:
        return body


def _sent(body: bytes) -> Coming:
    coming = Coming()
    coming.send(body)
    coming.send(None)
    return coming


async def test_bodies_that_come_at_once_have_a_limit_together() -> None:
    """A body that would exceed it is refused in a way that clients repeat; the others go on, and then there is room."""
    bodies = Bodies(most=20)
    slow, refused = Coming(), Coming()
    first = asyncio.create_task(_read(bodies, slow))
    slow.send(b"12345678")
    await asyncio.sleep(0)
    refused.send(b"123")
    with pytest.raises(Problem) as caught:
        await _read(bodies, refused)
    slow.send(None)
    assert b"12345678" == await first

    assert b"1234567890" == await _read(bodies, _sent(b"1234567890"))
    assert (503, "busy", "1") == (caught.value.status, caught.value.code, caught.value.headers["retry-after"])


async def test_a_body_counts_until_its_request_is_answered() -> None:
    """While PostgreSQL is slow, the bodies of the requests that wait for it have the same limit together."""
    bodies = Bodies(most=20)
    async with bodies.held(_sent(b"12345678").request, 100, of="acme") as body:
        assert b"12345678" == body
        with pytest.raises(Problem, match="too many bodies"):
            await _read(bodies, _sent(b"12345678"))

    assert b"12345678" == await _read(bodies, _sent(b"12345678"))


async def test_the_bodies_of_one_tenant_leave_room_for_another() -> None:
    """A tenant with its share, as much as is free beside it, is refused; another one is served."""
    bodies = Bodies(most=20)
    async with bodies.held(_sent(b"1234567890").request, 100, of="acme"):
        with pytest.raises(Problem, match="too many bodies"):
            await _read(bodies, _sent(b"1"))
        assert b"12345" == await _read(bodies, _sent(b"12345"), "globex")
        with pytest.raises(Problem, match="too many bodies"):
            await _read(bodies, _sent(b"123456"), "globex")
