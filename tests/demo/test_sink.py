"""The receiver of `hookseal up` reports every request."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import aiohttp
import asyncpg
import pytest

from hookseal.demo.sink import run_sink
from hookseal.demo.up import verified_by_endpoint
from hookseal.dispatcher.core.model import Attempt, Outcome, Ring, State, Verdict
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.replay import replay_delivery
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.clock import FakeClock
from tests.doubles.raw_request import raw_request
from tests.doubles.stored import begin
from tests.doubles.stuck_client import stuck_client

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
FAILED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))


async def test_each_request_is_reported() -> None:
    """Each request is reported with the id of its delivery in either scheme, and whether it is a retry."""
    reported: list[dict[str, object]] = []
    async with run_sink(reported.append) as url, aiohttp.ClientSession() as session:
        for headers in (
            {"webhook-id": "a", "x-hookseal-attempt": "1"},
            {"webhook-id": "a", "x-hookseal-attempt": "2"},
            {"x-webhook-delivery-id": "b", "x-hookseal-attempt": "11"},
            {},
        ):
            async with session.post(url + "hook", headers=headers, data="{}") as answer:
                assert 204 == answer.status
    request = {"event": "request.received", "path": "/hook", "bytes": 2}
    assert [
        request | {"webhook_id": "a", "attempt": "1", "retry": False},
        request | {"webhook_id": "a", "attempt": "2", "retry": True},
        request | {"webhook_id": "b", "attempt": "11", "retry": True},
        request | {"webhook_id": None, "attempt": None, "retry": False},
    ] == reported


async def test_a_header_that_is_not_utf8_is_reported() -> None:
    """Each byte that is no UTF-8 is a replacement character in the report, and in the url that the judge gets."""
    reported: list[dict[str, object]] = []
    urls: list[str] = []

    async def judge(url: str, _body: bytes, _headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        urls.append(url)
        return 204, {}

    async with run_sink(reported.append, judge=judge) as url:
        lines = (b"webhook-id: caf\xe9 \xc3\xa9", b"x-hookseal-attempt: \xff")
        assert 204 == await raw_request(url, *lines, host=b"h\xe9")
    [report] = reported
    assert ("caf\ufffd \u00e9", "\ufffd") == (report["webhook_id"], report["attempt"])
    assert ["http://h\ufffd/hook"] == urls


async def test_a_body_that_cannot_be_decoded_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """It is answered with 400 and reported, without a traceback; the judge does not get it."""
    reported: list[dict[str, object]] = []
    async with run_sink(reported.append) as url:
        for encoding in (b"gzip", b"deflate"):
            lines = (b"webhook-id: a", b"content-encoding: " + encoding)
            assert 400 == await raw_request(url, *lines, body=b"no archive")
    refused = {"event": "request.refused", "path": "/hook", "webhook_id": "a", "attempt": None, "retry": False}
    assert [
        refused
        | {"status": 400, "verified": False, "message": f"the body cannot be decoded; its content-encoding is {name}"}
        for name in ("gzip", "deflate")
    ] == reported
    assert "" == caplog.text


async def test_a_client_that_leaves_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A client that closes the connection before the whole body has come is reported, without a traceback."""
    reports = asyncio.Queue[dict[str, object]]()
    async with run_sink(reports.put_nowait) as url:
        async with stuck_client(url):
            pass
        report = await asyncio.wait_for(reports.get(), SOON_SECONDS)
    assert "the connection was closed before the whole body had come" == report["message"]
    assert "" == caplog.text


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_each_request_is_verified(begun_pool: Pool, algorithm: Algorithm) -> None:
    """The receiver of `up` reports whether a secret of an endpoint with the url of the request verifies it, else 401.

    A request for the url of no endpoint is accepted. The previous secret counts until its overlap ends.
    """
    installation = await begin(begun_pool)
    url = "http://127.0.0.1:9/hook?a=b"
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), algorithm=algorithm)
    pointer = (await installation.add(new)).pointer
    now = 1_700_000_000
    async with installation.unlocked.service.signers(pointer) as (signer,):
        signature = signer.sign(b"id.%d.{}" % now)
    headers = {"webhook-id": "id", "webhook-timestamp": str(now), "webhook-signature": signature}
    clock = FakeClock(datetime.fromtimestamp(now, UTC))
    judge = verified_by_endpoint(begun_pool, installation.unlocked, clock)

    async def judged(at: str, body: bytes) -> tuple[int, object]:
        status, report = await judge(at, body, headers)
        assert body.decode() == report["body"]
        return status, report["verified"]

    answers = [await judged(url, b"{}"), await judged(url, b"[]"), await judged(url[:-1], b"{}")]
    assert [(204, True), (401, False), (204, None)] == answers

    await installation.rotate(pointer.endpoint_id, overlap_seconds=60)
    in_overlap = await judged(url, b"{}")
    await begun_pool.execute("UPDATE hookseal.endpoints SET previous_secret_expires_at = now()")
    assert [(204, True), (401, False)] == [in_overlap, await judged(url, b"{}")]


async def test_a_replay_is_told_from_a_retry(begun_pool: Pool) -> None:
    """The first attempt of a replay is reported as one, with the id of the delivery or a new one; a retry is not."""
    installation = await begin(begun_pool)
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    ledger = PostgresLedger(begun_pool, worker="w-1", lease_seconds=45)
    judge = verified_by_endpoint(begun_pool, installation.unlocked, FakeClock(datetime.now(UTC)))

    async def sent(of: Ring, header: str = "webhook-id") -> object:
        """Claim the delivery, and return whether its request is reported as a replay."""
        claim = await ledger.claim(of)
        assert claim is not None
        _, report = await judge("http://127.0.0.1:9/", b"{}", {header: of.delivery_id})
        state = State.PENDING if claim.budget_spent == 0 else State.DEAD_LETTER
        assert await ledger.record(claim, FAILED, Verdict(state=state), "server_error")
        return report["replay"]

    async def replayed(*, new_id: bool) -> Ring:
        async with begun_pool.acquire() as connection:
            operator = installation.operator(connection)
            delivery = (await replay_delivery(operator, ring.delivery_id, new_id=new_id)).delivery_id
        return Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=delivery)

    assert [False, False] == [await sent(ring), await sent(ring)]
    copy = await replayed(new_id=True)
    assert [True, False] == [await sent(copy), await sent(copy)]
    again = await replayed(new_id=False)
    assert [True, False] == [await sent(again, "x-webhook-delivery-id"), await sent(again)]
    for unknown in ({}, {"webhook-id": "x"}, {"webhook-id": "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"}):
        assert not (await judge("http://127.0.0.1:9/", b"{}", unknown))[1]["replay"]
