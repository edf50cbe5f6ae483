"""The receiver of the demo takes what is signed with the secret of its path, and nothing else."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks import Webhook

from hookseal.demo.receiver import Receiver, receiving

SECRET = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(99, 131))).decode()


def signed(secret: str, *, number: int = 1, body: str = "{}", at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a request that is signed with this secret."""
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": f"id-{number}",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(f"id-{number}", moment, body),
    }


async def posted(receiver: Receiver, path: str, headers: dict[str, str], body: str = "{}") -> int:
    """Return the status that the receiver answers with."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(receiver.base_url + path, headers=headers, data=body) as answer,
    ):
        return answer.status


@pytest.mark.req("OPS-08")
async def test_a_signature_that_holds() -> None:
    """What is signed with the secret of its path is taken and counted once, however often it comes."""
    async with receiving() as receiver:
        receiver.expect("/a", SECRET)
        receiver.expect("/b", OTHER)
        waiting = asyncio.create_task(receiver.wait_for(2))
        assert 204 == await posted(receiver, "/a", signed(SECRET))
        assert 204 == await posted(receiver, "/a", signed(SECRET))
        assert not waiting.done()
        assert 204 == await posted(receiver, "/b", signed(OTHER, number=2))
        await asyncio.wait_for(waiting, 5)
    assert {"/a": {"id-1"}, "/b": {"id-2"}} == receiver.verified
    assert {"/a": 1} == receiver.repeated
    assert {} == receiver.refused


@pytest.mark.req("OPS-08")
@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/a", signed(OTHER), "{}"),
        ("/a", signed(SECRET), "{} "),
        ("/a", {}, "{}"),
        ("/a", signed(SECRET) | {"webhook-id": "id-2"}, "{}"),
        ("/a", signed(SECRET) | {"webhook-signature": "v1,AAAA"}, "{}"),
        ("/a", signed(SECRET, at=datetime.now(UTC) - timedelta(hours=1)), "{}"),
        ("/b", signed(SECRET), "{}"),
        ("/unknown", signed(SECRET), "{}"),
    ],
)
async def test_a_signature_that_does_not_hold(path: str, headers: dict[str, str], body: str) -> None:
    """A wrong secret, body, id, time or path is answered with 401, counted, and verified nowhere."""
    async with receiving() as receiver:
        receiver.expect("/a", SECRET)
        receiver.expect("/b", OTHER)
        assert 401 == await posted(receiver, path, headers, body)
    assert {path: 1} == receiver.refused
    assert {"/a": set(), "/b": set()} == receiver.verified
