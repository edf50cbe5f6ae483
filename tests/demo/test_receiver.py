"""The receiver of the demo accepts what is signed with a secret of its path, and nothing else."""

import asyncio
import base64
import hmac
import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks import Webhook

from hookseal.demo.receiver import Answer, Arrival, Receiver, run_receiver
from hookseal.ground.clock import SystemClock
from hookseal.ground.wire import Scheme

SECRET = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(99, 131))).decode()
THIRD = "whsec_" + base64.b64encode(bytes(range(98, 130))).decode()


def signed(*secrets: str, number: int = 1, body: str = "{}", at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a request that is signed with these secrets."""
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": f"id-{number}",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(f"id-{number}", moment, body) for secret in secrets),
    }


def x_signed(secret: str, *, body: str = "{}", at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a request that is signed as by the system before hookseal."""
    timestamp = int((at or datetime.now(UTC)).timestamp())
    digest = hmac.digest(secret.encode(), f"{timestamp}.{body}".encode(), "sha256")
    return {
        "x-webhook-delivery-id": "id-1",
        "x-webhook-timestamp": str(timestamp),
        "x-webhook-signature": f"sha256={digest.hex()}",
    }


async def answered(receiver: Receiver, path: str, headers: dict[str, str], body: str = "{}") -> tuple[int, str | None]:
    """Return the status of the receiver's answer, and its Retry-After."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(receiver.base_url + path, headers=headers, data=body) as answer,
    ):
        return answer.status, answer.headers.get("retry-after")


@pytest.mark.req("OPS-08")
async def test_a_valid_signature_is_accepted() -> None:
    """A request signed with the secret of its path is accepted, and its delivery is counted once."""
    async with run_receiver(SystemClock()) as receiver:
        receiver.expect("/a", SECRET)
        receiver.expect("/b", OTHER)
        waiting = asyncio.create_task(receiver.wait_until(lambda: bool(receiver.verified("/b"))))
        assert (204, None) == await answered(receiver, "/a", signed(SECRET))
        assert (204, None) == await answered(receiver, "/a", signed(SECRET))
        assert not waiting.done()
        assert (204, None) == await answered(receiver, "/b", signed(OTHER, number=2))
        await asyncio.wait_for(waiting, 60)
    assert ({"id-1"}, {"id-2"}) == (receiver.verified("/a"), receiver.verified("/b"))
    assert (0, 0) == (receiver.refused("/a"), receiver.refused("/b"))
    assert 2 * (Arrival(delivery_id="id-1", verified_by=frozenset({1}), status=204),) == receiver.arrivals("/a")


@pytest.mark.req("OPS-08")
async def test_each_secret_is_tried_separately() -> None:
    """Each of several secrets is tried separately, and the numbers of those that verify are recorded."""
    async with run_receiver(SystemClock()) as receiver:
        for secret in (SECRET, OTHER, THIRD):
            receiver.expect("/a", secret)
        for secrets in ((SECRET,), (OTHER, SECRET), (THIRD,)):
            assert (204, None) == await answered(receiver, "/a", signed(*secrets))
    verified_by = [arrival.verified_by for arrival in receiver.arrivals("/a")]
    assert [frozenset({1}), frozenset({1, 2}), frozenset({3})] == verified_by


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/a", signed(OTHER), "{}"),
        ("/a", signed(SECRET), "{} "),
        ("/a", {}, "{}"),
        ("/a", signed(SECRET) | {"webhook-id": "id-2"}, "{}"),
        ("/a", signed(SECRET) | {"webhook-signature": "v1,AAAA"}, "{}"),
        ("/a", signed(SECRET) | {"webhook-signature": "v1"}, "{}"),
        ("/a", signed(SECRET, at=datetime.now(UTC) - timedelta(hours=1)), "{}"),
        ("/a", x_signed(SECRET), "{}"),
        ("/b", signed(SECRET), "{}"),
        ("/unknown", signed(SECRET), "{}"),
        ("/x", x_signed(OTHER), "{}"),
        ("/x", x_signed(SECRET), "{} "),
        ("/x", x_signed(SECRET, at=datetime.now(UTC) - timedelta(hours=1)), "{}"),
        ("/x", signed(SECRET), "{}"),
    ],
)
async def test_an_invalid_signature_is_refused(path: str, headers: dict[str, str], body: str) -> None:
    """A wrong secret, body, id, time, scheme or path is answered with 401, counted, and never verified."""
    async with run_receiver(SystemClock()) as receiver:
        receiver.expect("/a", SECRET)
        receiver.expect("/b", OTHER)
        receiver.expect("/x", SECRET, Scheme.X_WEBHOOK)
        receiver.answer(path, [Answer(status=200)])
        assert (401, None) == await answered(receiver, path, headers, body)
        assert {path: 1} == {at: receiver.refused(at) for at in ("/a", "/b", "/x", "/unknown") if receiver.refused(at)}
        assert not any(receiver.verified(at) for at in ("/a", "/b", "/x", "/unknown"))


@pytest.mark.req("OPS-08")
async def test_an_x_webhook_path_accepts_that_scheme() -> None:
    """A path of the scheme `x-webhook` accepts requests that are signed with the text of the secret."""
    async with run_receiver(SystemClock()) as receiver:
        receiver.expect("/x", SECRET, Scheme.X_WEBHOOK)
        body = json.dumps({"a": 1})
        assert (204, None) == await answered(receiver, "/x", x_signed(SECRET, body=body), body)
    assert {"id-1"} == receiver.verified("/x")


async def test_a_path_gives_its_configured_answers() -> None:
    """A path gives its configured answers, one for each verified request, and then 204."""
    async with run_receiver(SystemClock()) as receiver:
        receiver.expect("/a", SECRET)
        receiver.answer("/a", [Answer(status=500), Answer(status=503, retry_after=7)])
        answers = [
            await answered(receiver, "/a", signed(*secrets)) for secrets in ((SECRET,), (OTHER,), *2 * [(SECRET,)])
        ]
    assert [(500, None), (401, None), (503, "7"), (204, None)] == answers
    assert [500, 401, 503, 204] == [arrival.status for arrival in receiver.arrivals("/a")]
