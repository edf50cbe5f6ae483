"""Whether a real receiver has switched to the current secret: asked by signed requests, and the overlap ended."""

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import AddedEndpoint, RotationStatus
from hookseal.errors import Conflict, Refused, SecretTampered
from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests.cli.switching import Switching, switching
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("OPS-12")

OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
TEXT = "a new secret of any text"
PAIR = generate_signing_secret(Algorithm.ED25519)
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
BY: dict[str, Any] = {"actor": "jane@product.example"}


@pytest.fixture
async def receiver() -> AsyncIterator[Switching]:
    """Yield a receiver that knows only the old secret."""
    async with switching() as found:
        found.secrets = [OLD]
        yield found


async def added(admin: Admin, url: str, **more: Any) -> dict[str, Any]:
    """Add an endpoint that signs with the old secret, and return the arguments that name it and the user."""
    new: AddedEndpoint = await admin.endpoints.add(
        tenant_id="acme", url=url, event_types=["*"], secret=OLD, **BY, **more
    )
    return {"tenant_id": "acme", "endpoint_id": new.endpoint_id, **BY}


async def asked(admin: Admin, named: dict[str, Any]) -> tuple[str, int | None, int | None]:
    """Ask the receiver; return the verdict and both statuses."""
    found = await admin.secrets.probe(**named)
    return found.verdict, found.status, found.control_status


def verdict(status: RotationStatus) -> str | None:
    """Return the verdict of the canary in the status."""
    return None if status.canary is None else status.canary.verdict


@pytest.mark.parametrize(
    ("before", "after", "secret", "known"),
    [
        pytest.param("standard", {}, NEW, NEW, id="standard"),
        pytest.param("svix", {}, NEW, NEW, id="svix"),
        pytest.param("x-webhook", {}, TEXT, TEXT, id="x-webhook"),
        pytest.param(
            "standard",
            {"algorithm": "ed25519"},
            PAIR.reveal().decode(),
            str(public_key_of(PAIR)),
            id="ed25519",
        ),
    ],
)
async def test_each_receiver_has_its_verdict(
    admin: Admin,
    receiver: Switching,
    installation: Installation,
    before: str,
    after: dict[str, Any],
    secret: str,
    known: str,
) -> None:
    """A receiver that accepts the new secret has switched; each other behaviour has a verdict of its own."""
    named = await added(admin, receiver.url, scheme=before)
    await admin.secrets.rotate(**named, secret=secret, **after)
    assert ("not_switched", 401, None) == await asked(admin, named)
    assert 1 == len(receiver.received), "no control is sent if it would prove nothing"

    receiver.secrets = [known]
    assert ("switched", 204, 401) == await asked(admin, named)
    receiver.secrets = [OLD, known]
    assert ("switched", 204, 401) == await asked(admin, named)
    receiver.always = 200
    assert ("does_not_verify", 200, 200) == await asked(admin, named)
    receiver.always = 500
    assert ("no_answer", 500, None) == await asked(admin, named)

    rows = await installation.pool.fetch("SELECT verdict FROM hookseal.rotation_canaries ORDER BY sent_at")
    assert ["not_switched", "switched", "switched", "does_not_verify", "no_answer"] == [row["verdict"] for row in rows]


async def test_a_dead_receiver_has_no_answer(admin: Admin) -> None:
    """Without a listening receiver the verdict is `no_answer`."""
    async with switching() as gone:
        named = await added(admin, gone.url)
    found = await admin.secrets.probe(**named)

    assert ("no_answer", None, None) == (found.verdict, found.status, found.control_status)
    assert "the connection failed" in (found.detail or "")


async def test_canary_and_control_differ_only_in_id_time_and_signature(admin: Admin, receiver: Switching) -> None:
    """Canary and control differ only in id, time and signature, and both have the endpoint's own headers."""
    named = await added(admin, receiver.url, headers={"Authorization": "Bearer t0ken"})
    receiver.secrets = [NEW]
    await admin.secrets.rotate(**named, secret=NEW)
    await admin.secrets.probe(**named)
    [(first, body, taken), (second, other, refused)] = receiver.received

    assert (204, 401) == (taken, refused)
    assert first.keys() == second.keys()
    assert "Bearer t0ken" == first["authorization"]
    differing = {name for name in first if first[name] != second[name]}
    ids_and_signature = {"webhook-id", "x-hookseal-event-id", "webhook-signature"}
    assert ids_and_signature <= differing <= ids_and_signature | {"webhook-timestamp"}
    for headers, sent in ((first, body), (second, other)):
        printed = json.loads(sent)
        assert ("hookseal.ping", {"id": headers["webhook-id"], "endpoint_id": named["endpoint_id"]}) == (
            printed["type"],
            printed["data"],
        )
        assert UUID7.fullmatch(headers["webhook-id"])
        assert 1 == headers["webhook-signature"].count("v1,"), "only one secret signed"
    assert body != other


async def test_a_switched_receiver_ends_the_overlap(
    admin: Admin, receiver: Switching, installation: Installation
) -> None:
    """Until the receiver has switched nothing is changed; then the overlap is ended, which is on record."""
    named = await added(admin, receiver.url)
    await admin.secrets.rotate(**named, secret=NEW)
    for always, expected in ((None, "not_switched"), (200, "does_not_verify"), (503, "no_answer")):
        receiver.always = always
        status = await admin.secrets.check_switch(**named, end_overlap=True)
        assert (expected, 2, False, True) == (
            *(verdict(status), status.generation, status.overlap_ended, status.overlapping),
        )
    receiver.always, receiver.secrets = None, [NEW]
    assert (2, False) == (
        (status := await admin.secrets.check_switch(**named)).generation,
        status.overlap_ended,
    ), "it was not asked to end it"

    status = await admin.secrets.check_switch(**named, end_overlap=True)
    assert status.canary is not None
    assert ("switched", 2, True, 3, None) == (
        *(status.canary.verdict, status.canary.generation, status.overlap_ended, status.generation),
        status.previous_secret_ref,
    )
    assert "secret.overlap_ended" == (await audited(installation.pool))[-1]["action"]
    with pytest.raises(Conflict, match=r"no overlap is running, so none can be ended$") as caught:
        await admin.secrets.check_switch(**named, end_overlap=True)
    assert "endpoint_id" == caught.value.field
    assert "switched" == verdict(await admin.secrets.check_switch(**named))


async def test_an_older_generations_canary_does_not_count(admin: Admin, receiver: Switching) -> None:
    """A canary of an older generation is not shown, and does not end an overlap."""
    named = await added(admin, receiver.url)
    receiver.secrets = [NEW]
    await admin.secrets.rotate(**named, secret=NEW)
    assert "switched" == (await admin.secrets.probe(**named)).verdict
    await admin.secrets.roll_back(**named)

    assert (await admin.secrets.status(tenant_id="acme", endpoint_id=named["endpoint_id"])).canary is None
    status = await admin.secrets.check_switch(**named, end_overlap=True)
    assert (False, 3, True) == (status.overlap_ended, status.generation, status.overlapping)


async def test_a_disabled_endpoint_gets_no_canary(admin: Admin, receiver: Switching) -> None:
    """A disabled endpoint gets no request, and nothing is on record."""
    named = await added(admin, receiver.url)
    await admin.endpoints.disable(**named, reason="x")
    with pytest.raises(Refused, match="nothing is sent: the endpoint is disabled"):
        await admin.secrets.probe(**named)

    assert [] == receiver.received
    assert (await admin.secrets.status(tenant_id="acme", endpoint_id=named["endpoint_id"])).canary is None


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE hookseal.endpoints SET url = url || '?elsewhere'", id="url"),
        pytest.param("UPDATE hookseal.endpoints SET secret_ref = previous_secret_ref", id="secret"),
    ],
)
async def test_an_altered_row_gets_no_request(
    admin: Admin, receiver: Switching, installation: Installation, statement: str
) -> None:
    """No request is sent for an endpoint row that was altered."""
    named = await added(admin, receiver.url)
    await admin.secrets.rotate(**named)
    await installation.pool.execute(statement)
    with pytest.raises(SecretTampered):
        await admin.secrets.probe(**named)

    assert [] == receiver.received
