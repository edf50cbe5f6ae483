"""The official Python client of Svix, unchanged, against the API."""

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path

import httpx
import pytest
import svix as svix_package
from pydantic import ValidationError
from svix.api import (
    ApplicationIn,
    ApplicationListOptions,
    ApplicationPatch,
    EndpointHeadersIn,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    EndpointSecretRotateIn,
    EventExampleIn,
    EventTypeIn,
    EventTypeListOptions,
    EventTypePatch,
    MessageIn,
    RecoverIn,
    SvixAsync,
    SvixOptions,
)
from svix.api.endpoint import EndpointRotateSecretOptions
from svix.api.event_type import EventTypeDeleteOptions
from svix.api.message import MessageListOptions
from svix.exceptions import HttpError, HTTPValidationError
from svix.models import EndpointUpsertIn, EventTypeUpsertIn, Ordering

from hookseal import Admin
from tests.api.official import official
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tools.pages import calls
from tools.records import ROOT

pytestmark = pytest.mark.req("API-02", part="python")


@pytest.fixture
async def svix(url: str) -> AsyncIterator[SvixAsync]:
    """Yield the official client, which may do everything."""
    async with official("every", url) as client:
        yield client


def listed() -> dict[str, tuple[str, str, str]]:
    """Return what docs/reference/calls.md says of each method for Python: its name elsewhere, its request, and how."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (\S+) \| (\w+ `\S+`) \| (served|not supported: .+) \|$", _page(), re.MULTILINE
    )
    return {name: (elsewhere, request.replace("`", ""), here) for name, elsewhere, request, here in rows}


def _page() -> str:
    return (ROOT / calls.PAGE).read_text(encoding="utf-8")


@pytest.mark.req("API-07")
@pytest.mark.filterwarnings("ignore:Call to deprecated method", "ignore:Pydantic serializer warnings")
async def test_each_method_is_served_or_refused_as_listed(url: str) -> None:
    """Each of the client is called, and answered as the page says: one that is refused with the reason there."""
    answers = list[httpx.Response]()

    async def note(response: httpx.Response) -> None:
        await response.aread()
        answers.append(response)

    client, known = SvixAsync("every", SvixOptions(server_url=url, retry_schedule=[])), listed()
    client._httpx_client.event_hooks["response"] = [note]
    called = set[str]()
    for name, method in calls.methods(client):
        kinds = [each.annotation for each in signature(method).parameters.values() if each.default is each.empty]
        with suppress(HttpError, HTTPValidationError, ValidationError):
            await method(*("x" if kind is str else kind.model_construct() for kind in kinds))
        [answer] = answers
        answers.clear()
        called.add(name)
        _, request, here = known[name]
        pattern = re.sub(r"{\w+}", "x", request)
        assert pattern == f"{answer.request.method} {answer.request.url.path}", name
        if here == "served":
            assert answer.status_code not in {404, 405, 501} or "not_found" in answer.text, (name, answer.text)
        else:
            refused = {"code": "not_supported", "detail": here.removeprefix("not supported: ")}
            assert (501, refused) == (answer.status_code, answer.json()), name
    await client._httpx_client.aclose()

    assert called == known.keys()


@pytest.mark.req("API-07")
async def test_requests_that_only_the_inside_of_the_client_makes_are_refused_as_well(client: httpx.AsyncClient) -> None:
    sources = [file.read_text(encoding="utf-8") for file in sorted(Path(svix_package.__file__).parent.rglob("*.py"))]
    requests = {found for source in sources for found in calls.REQUEST.findall(source)}
    inside = [(method, path) for method, path in requests if calls.why_not(method.upper(), path) is not None]
    assert len(inside) > len([each for each in listed().values() if each[2] != "served"])
    for method, path in inside:
        answer = await client.request(method, re.sub(r"{\w+}", "x", path))
        assert (501, "not_supported") == (answer.status_code, answer.json()["code"]), path


async def test_applications(svix: SvixAsync) -> None:
    made = await svix.application.create(ApplicationIn(name="Acme", uid="acme", metadata={"plan": "gold"}))
    assert ("acme", "acme", "Acme", {"plan": "gold"}) == (made.id, made.uid, made.name, made.metadata)
    assert made == await svix.application.get("acme")
    assert made == await svix.application.get_or_create(ApplicationIn(name="Other", uid="acme"))
    with pytest.raises(HttpError) as caught:
        await svix.application.create(ApplicationIn(name="Acme", uid="acme"))
    assert (409, "conflict") == (caught.value.status_code, caught.value.code)

    long = "org:1/2".replace(":", "-").replace("/", ".") + "x" * 100
    other = await svix.application.create(ApplicationIn(name="Long", uid=long))
    assert (True, long) == (other.id.startswith("app_"), other.uid)
    assert other == await svix.application.get(long)
    unnamed = await svix.application.create(ApplicationIn(name="None"))
    assert (True, None) == (unnamed.id.startswith("app_"), unnamed.uid)

    patched = await svix.application.patch(long, ApplicationPatch(name="Longer", metadata={"a": "b"}))
    assert ("Longer", {"a": "b"}, other.id) == (patched.name, patched.metadata, patched.id)
    for uid in ("globex", "y" * 200):
        created = await svix.application.upsert(uid, ApplicationIn(name="One"))
        again = await svix.application.upsert(uid, ApplicationIn(name="Two", uid=uid))
        assert (created.id, uid, "Two", {}) == (again.id, again.uid, again.name, again.metadata)

    first = await svix.application.list(ApplicationListOptions(limit=2, order=Ordering.ASCENDING))
    rest = await svix.application.list(
        ApplicationListOptions(limit=9, order=Ordering.ASCENDING, iterator=first.iterator)
    )
    assert ([False, True], 5) == ([first.done, rest.done], len(first.data + rest.data))
    assert [each.id for each in first.data + rest.data][::-1] == [
        each.id for each in (await svix.application.list()).data
    ]
    await svix.application.delete("acme")
    with pytest.raises(HttpError) as caught:
        await svix.application.get("acme")
    assert (404, "not_found", "Entity not found") == (caught.value.status_code, caught.value.code, caught.value.detail)


async def test_endpoints(svix: SvixAsync) -> None:
    given = EndpointIn(
        url="https://a.example/hook",
        uid="main",
        description="The first",
        throttle_rate=50,
        event_types=["invoice.*", "user.added"],
        channels=["eu"],
        metadata={"team": "billing"},
        headers={"X-Team": "billing"},
    )
    made = await svix.endpoint.create("acme", given)
    assert (given.url, "main", "The first", 50, ["invoice.*", "user.added"], ["eu"], {"team": "billing"}, False) == (
        *(made.url, made.uid, made.description, made.throttle_rate, made.event_types, made.channels, made.metadata),
        made.disabled,
    )
    assert [made] * 2 == [await svix.endpoint.get("acme", each) for each in (made.id, "main")]

    plain = await svix.endpoint.create("acme", EndpointIn(url="https://b.example", disabled=True, event_types=[]))
    assert (None, None, "", {}, True, None) == (
        *(plain.uid, plain.event_types, plain.description, plain.metadata, plain.disabled, plain.throttle_rate),
    )
    patched = await svix.endpoint.patch(
        "acme", "main", EndpointPatch(url="https://c.example", throttle_rate=None, event_types=None, disabled=True)
    )
    assert ("https://c.example", None, None, True, "The first") == (
        *(patched.url, patched.throttle_rate, patched.event_types, patched.disabled, patched.description),
    )
    assert made.updated_at < patched.updated_at
    enabled = await svix.endpoint.patch("acme", "main", EndpointPatch(disabled=False))
    assert not enabled.disabled
    assert enabled == await svix.endpoint.patch("acme", "main", EndpointPatch())

    some = await svix.endpoint.patch("acme", "main", EndpointPatch(event_types=["a"]))
    every = await svix.endpoint.patch("acme", "main", EndpointPatch(event_types=[]))
    assert (["a"], None) == (some.event_types, every.event_types), "an empty list is every type"
    for endpoint_id in ("main", plain.id):
        emptied = await svix.endpoint.upsert(
            "acme", endpoint_id, EndpointUpsertIn(url=f"https://{endpoint_id}.example", event_types=[])
        )
        assert None is emptied.event_types
    replaced = await svix.endpoint.upsert("acme", "main", EndpointUpsertIn(url="https://d.example"))
    assert ("main", "", {}, made.id) == (replaced.uid, replaced.description, replaced.metadata, replaced.id)
    added = await svix.endpoint.upsert("acme", "second", EndpointUpsertIn(url="https://e.example", disabled=True))
    assert ("second", True) == (added.uid, added.disabled)

    first = await svix.endpoint.list("acme", EndpointListOptions(limit=2))
    second = await svix.endpoint.list("acme", EndpointListOptions(limit=2, iterator=first.iterator))
    back = await svix.endpoint.list("acme", EndpointListOptions(limit=2, iterator=second.prev_iterator))
    assert [added.id, plain.id, made.id] == [each.id for each in first.data + second.data]
    assert ([False, True], first.data) == ([first.done, second.done], back.data)
    oldest = await svix.endpoint.list("acme", EndpointListOptions(order=Ordering.ASCENDING))
    assert [made.id, plain.id, added.id] == [each.id for each in oldest.data]

    await svix.endpoint.delete("acme", "main")
    with pytest.raises(HttpError) as caught:
        await svix.endpoint.get("acme", made.id)
    assert 404 == caught.value.status_code
    with pytest.raises(HttpError) as caught:
        await svix.endpoint.create("acme", EndpointIn(url="https://e.example"))
    assert (409, "conflict") == (caught.value.status_code, caught.value.code)


async def test_what_is_wrong_in_an_endpoint_is_named(svix: SvixAsync) -> None:
    """And why: no message is withheld because it has words of an operator."""
    for given, loc in (
        (EndpointIn(url="ftp://a.example"), "url"),
        (EndpointIn(url="https://192.168.1.1/"), "url"),
        (EndpointIn(url="https://a.example", throttle_rate=0), "throttleRate"),
        (EndpointIn(url="https://a.example", event_types=["a..b"]), "eventTypes"),
        (EndpointIn(url="https://a.example", uid="a b"), "uid"),
        (EndpointIn(url="https://a.example", metadata={"": "x"}), "metadata"),
        (EndpointIn(url="https://a.example", description="a\x00"), "description"),
        (EndpointIn(url="https://a.example", headers={"webhook-id": "x"}), "headers"),
        (EndpointIn(url="https://a.example", secret="whsec_short"), "secret"),
    ):
        with pytest.raises(HTTPValidationError) as caught:
            await svix.endpoint.create("acme", given)
        assert ["body", loc] == caught.value.detail[0].loc, given
        assert "the value is not allowed" != caught.value.detail[0].msg, given


@pytest.mark.req("API-05")
async def test_secrets(svix: SvixAsync, admin: Admin) -> None:
    """A secret is shown, and rotated once for each key; a second rotation in the overlap says what may be done."""
    own = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    made = await svix.endpoint.create("acme", EndpointIn(url="https://a.example", secret=own))
    assert own == (await svix.endpoint.get_secret("acme", made.id)).key
    once = EndpointRotateSecretOptions(idempotency_key="once")
    rotated = await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(), once)
    assert rotated == await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(), once)
    assert rotated == await svix.endpoint.get_secret("acme", made.id)
    assert own != rotated.key

    with pytest.raises(HTTPValidationError) as invalid:
        await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(grace_period_seconds=5), once)
    assert ["header", "idempotency-key"] == invalid.value.detail[0].loc
    with pytest.raises(HttpError) as caught:
        await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(key=own))
    status = await admin.secrets.status(tenant_id="acme", endpoint_id=made.id)
    assert status.previous_secret_expires_at is not None
    assert 409 == caught.value.status_code
    assert f"runs until {status.previous_secret_expires_at:%Y-%m-%dT%H:%M:%SZ}" in caught.value.detail
    assert "gracePeriodSeconds of 0" in caught.value.detail

    revoked = await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(grace_period_seconds=0))
    status = await admin.secrets.status(tenant_id="acme", endpoint_id=made.id)
    assert (revoked.key, None) == (
        (await svix.endpoint.get_secret("acme", made.id)).key,
        status.previous_secret_ref,
    )
    with pytest.raises(HttpError) as caught:
        await svix.endpoint.rotate_secret("acme", made.id, EndpointSecretRotateIn(), once)
    assert (409, "the secret of this rotation has been replaced since") == (
        caught.value.status_code,
        caught.value.detail,
    )


async def test_headers(svix: SvixAsync) -> None:
    made = await svix.endpoint.create("acme", EndpointIn(url="https://a.example", headers={"X-A": "1"}))
    await svix.endpoint.patch_headers(
        "acme", made.id, EndpointHeadersPatchIn(headers={"X-B": "2", "X-C": "3"}, delete_headers=["X-A"])
    )
    shown = await svix.endpoint.get_headers("acme", made.id)
    assert ({}, ["x-b", "x-c"]) == (shown.headers, sorted(shown.sensitive))
    await svix.endpoint.set_headers("acme", made.id, EndpointHeadersIn(headers={"X-D": "4"}))
    assert ["x-d"] == (await svix.endpoint.get_headers("acme", made.id)).sensitive
    with pytest.raises(HTTPValidationError) as caught:
        await svix.endpoint.set_headers("acme", made.id, EndpointHeadersIn(headers={"X-D": "a\nb"}))
    assert ["body", "headers"] == caught.value.detail[0].loc


async def test_a_recovery_with_nothing_to_send_has_finished(svix: SvixAsync) -> None:
    made = await svix.endpoint.create("acme", EndpointIn(url="https://a.example"))
    since = datetime.now(UTC) - timedelta(hours=1)
    task = await svix.endpoint.recover("acme", made.id, RecoverIn(since=since))
    assert ("finished", "endpoint.recover") == (task.status.value, task.task.value)
    found = await svix.background_task.get(task.id)
    assert (task.id, "finished", {"messagesSent": 0}) == (found.id, found.status.value, found.data)
    assert [] == (await svix.background_task.list()).data
    with pytest.raises(HttpError) as caught:
        await svix.endpoint.recover("acme", "0193b0c0-0000-7000-8000-000000000000", RecoverIn(since=since))
    assert 404 == caught.value.status_code


async def test_messages(svix: SvixAsync) -> None:
    message = MessageIn(event_type="invoice.paid", event_id="invoice-1", payload={"id": 1}, channels=["eu", "us"])
    made = await svix.message.create("acme", message)
    assert ("invoice-1", "invoice.paid", {}, ["eu", "us"]) == (made.id, made.event_type, made.payload, made.channels)
    assert made == await svix.message.create("acme", message)
    assert made == await svix.message.get("acme", "invoice-1")
    with pytest.raises(HttpError) as caught:
        await svix.message.create("acme", message.model_copy(update={"payload": {"id": 2}}))
    assert (409, "conflict") == (caught.value.status_code, caught.value.code)


async def test_messages_are_listed(svix: SvixAsync, installation: Installation) -> None:
    """In both directions, by types and channel, and with their payloads, the reading of which is one audit row."""
    given = (("a", "e-1", ["eu"]), ("b", "-e", None), ("a", "--f", ["us", "eu"]), ("c", "e_4", None))
    for event_type, event_id, channels in given:
        message = MessageIn(event_type=event_type, event_id=event_id, payload={"of": event_id}, channels=channels)
        await svix.message.create("acme", message)
    options = MessageListOptions
    first = await svix.message.list("acme", options(limit=2))
    second = await svix.message.list("acme", options(limit=2, iterator=first.iterator))
    back = await svix.message.list("acme", options(limit=2, iterator=second.prev_iterator))
    assert ["e_4", "--f", "-e", "e-1"] == [each.id for each in first.data + second.data]
    assert ([False, True], first.data) == ([first.done, second.done], back.data)
    one = await svix.message.list("acme", options(limit=1, iterator=(first.iterator)))
    assert ["-e"] == [each.id for each in one.data]
    assert ["e-1"] == [each.id for each in (await svix.message.list("acme", options(iterator=one.iterator))).data]

    for chosen, expected in (
        (options(event_types=["a", "c"]), ["e_4", "--f", "e-1"]),
        (options(channel="us"), ["--f"]),
        (options(before=datetime.now(UTC) - timedelta(hours=1)), []),
        (options(after=datetime.now(UTC) + timedelta(hours=1)), []),
    ):
        found = await svix.message.list("acme", chosen)
        assert expected == [each.id for each in found.data], chosen
    before = len(await audited(installation.pool))
    assert [{}] * 4 == [each.payload for each in (await svix.message.list("acme")).data]
    assert before == len(await audited(installation.pool))
    read = await svix.message.list("acme", options(with_content=True))
    assert [{"of": each.id} for each in read.data] == [each.payload for each in read.data]
    assert before + 1 == len(await audited(installation.pool))
    with pytest.raises(HTTPValidationError) as caught:
        await svix.message.list("acme", options(iterator="none"))
    assert ["query", "iterator"] == caught.value.detail[0].loc


async def test_an_example_is_sent_to_one_endpoint(svix: SvixAsync, admin: Admin) -> None:
    """Of its schema, or with a payload of its own, and to nobody else."""
    schemas = {"1": {"examples": [{"id": 1}]}, "2": {"type": "object", "examples": [{"id": 2}, {"price": 1.10}]}}
    await svix.event_type.create(EventTypeIn(name="invoice.paid", description="Paid", schemas=schemas))
    await svix.event_type.create(EventTypeIn(name="plain", description="Plain"))
    made = await svix.endpoint.create("acme", EndpointIn(url="https://a.example", event_types=["no.example"]))
    await svix.endpoint.create("acme", EndpointIn(url="https://b.example"))
    for given, payload in (
        (EventExampleIn(event_type="invoice.paid"), {"id": 2}),
        (EventExampleIn(event_type="invoice.paid", example_index=1), {"price": 1.10}),
        (EventExampleIn(event_type="any.type", payload={"own": True}), {"own": True}),
    ):
        sent = await svix.endpoint.send_example("acme", made.id, given)
        assert (given.event_type, payload) == (sent.event_type, sent.payload)
        [delivery] = (await admin.deliveries.list(tenant_id="acme", event_id=sent.id)).items
        assert made.id == delivery.endpoint_id
    for wrong in (
        EventExampleIn(event_type="invoice.paid", example_index=2),
        EventExampleIn(event_type="invoice.paid", example_index=-1),
        EventExampleIn(event_type="plain"),
        EventExampleIn(event_type="no.such"),
    ):
        with pytest.raises(HTTPValidationError) as caught:
            await svix.endpoint.send_example("acme", made.id, wrong)
        assert ["body", "eventType"] == caught.value.detail[0].loc, wrong


async def test_an_example_of_ones_own_is_published(url: str, admin: Admin) -> None:
    """So it needs the right to publish; an example of the schema does not."""
    await admin.event_types.add(name="a", description="A", schemas='{"1": {"examples": [{}]}}', actor="test")
    async with official("operator", url) as operator:
        made = await operator.endpoint.create("acme", EndpointIn(url="https://a.example"))
        await operator.endpoint.send_example("acme", made.id, EventExampleIn(event_type="a"))
        with pytest.raises(HttpError) as caught:
            await operator.endpoint.send_example("acme", made.id, EventExampleIn(event_type="a", payload={"own": True}))
    assert 403 == caught.value.status_code


async def test_a_body_that_is_too_long_is_answered_in_json(svix: SvixAsync) -> None:
    """The client sees the answer, although the server stops reading."""
    with pytest.raises(HttpError) as caught:
        await svix.message.create("acme", MessageIn(event_type="a", payload={"x": "y" * 3_000_000}))

    assert (413, "payload_too_large") == (caught.value.status_code, caught.value.code)


async def test_health(svix: SvixAsync) -> None:
    await svix.health.get()


async def test_event_types(svix: SvixAsync) -> None:
    schemas = {"1": {"type": "object", "properties": {"amount": {"type": "number", "multipleOf": 0.01}}}}
    given = EventTypeIn(name="invoice.paid", description="An invoice was paid", schemas=schemas)
    made = await svix.event_type.create(given)
    assert ("invoice.paid", "An invoice was paid", schemas, False, False) == (
        *(made.name, made.description, made.schemas, made.deprecated, made.archived),
    )
    assert made == await svix.event_type.get("invoice.paid")
    with pytest.raises(HttpError) as caught:
        await svix.event_type.create(given)
    assert 409 == caught.value.status_code

    patched = await svix.event_type.patch("invoice.paid", EventTypePatch(deprecated=True))
    assert (True, schemas) == (patched.deprecated, patched.schemas)
    assert (await svix.event_type.patch("invoice.paid", EventTypePatch(schemas=None))).schemas is None
    for description in ("One", "Two"):
        upserted = await svix.event_type.upsert("user.added", EventTypeUpsertIn(description=description))
        assert ("user.added", description, False) == (upserted.name, upserted.description, upserted.deprecated)

    first = await svix.event_type.list(EventTypeListOptions(limit=1, order=Ordering.ASCENDING, with_content=True))
    second = await svix.event_type.list(
        EventTypeListOptions(limit=1, order=Ordering.ASCENDING, iterator=first.iterator)
    )
    assert ["invoice.paid", "user.added"] == [each.name for each in first.data + second.data]
    assert [False, True] == [first.done, second.done]
    await svix.event_type.delete("user.added")
    assert ["invoice.paid"] == [each.name for each in (await svix.event_type.list()).data]
    everything = await svix.event_type.list(EventTypeListOptions(include_archived=True))
    assert ["user.added", "invoice.paid"] == [each.name for each in everything.data]
    assert (await svix.event_type.get("user.added")).archived


async def test_what_is_wrong_in_an_event_type_is_named(svix: SvixAsync) -> None:
    for given, loc in (
        (EventTypeIn(name="a..b", description="x"), "name"),
        (EventTypeIn(name="a", description="x\x00"), "description"),
        (EventTypeIn(name="a", description="x", schemas={"1": 5}), "schemas"),
        (EventTypeIn(name="a", description="x", feature_flags=["f"]), "featureFlags"),
        (EventTypeIn(name="a", description="x", group_name="g"), "groupName"),
    ):
        with pytest.raises(HTTPValidationError) as caught:
            await svix.event_type.create(given)
        assert ["body", loc] == caught.value.detail[0].loc, given
    with pytest.raises(HTTPValidationError) as caught:
        await svix.event_type.delete("a", EventTypeDeleteOptions(expunge=True))
    assert ["query", "expunge"] == caught.value.detail[0].loc
