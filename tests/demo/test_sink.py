"""The receiver of `hookseal up` accepts every request and reports it."""

from datetime import UTC, datetime
from typing import TypeAlias

import aiohttp
import asyncpg
import pytest

from hookseal.demo.sink import run_sink
from hookseal.demo.verdicts import verified_by_endpoint
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from tests.doubles.clock import FakeClock
from tests.doubles.stored import begin

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


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


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_each_request_is_verified(begun_pool: Pool, algorithm: Algorithm) -> None:
    """The receiver of `up` reports whether a secret of an endpoint with the url of the request verifies it."""
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

    async def verified(at: str, body: bytes) -> object:
        status, report = await judge(at, body, headers)
        assert (204, body.decode()) == (status, report["body"])
        return report["verified"]

    answers = [await verified(url, b"{}"), await verified(url, b"[]"), await verified(url[:-1], b"{}")]
    assert [True, False, None] == answers
