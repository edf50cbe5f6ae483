"""The receiver of `hookseal up` takes everything and tells what came."""

import aiohttp
import pytest

from hookseal.demo.sink import sinking
from hookseal.ground.errors import Unavailable


async def test_what_is_told() -> None:
    """Each request is told with its delivery's id in either scheme, and whether it was tried before."""
    told: list[dict[str, object]] = []
    async with sinking(told.append) as url, aiohttp.ClientSession() as session:
        for headers in (
            {"webhook-id": "a", "x-hookseal-attempt": "1"},
            {"webhook-id": "a", "x-hookseal-attempt": "2"},
            {"x-webhook-delivery-id": "b", "x-hookseal-attempt": "11"},
            {},
        ):
            async with session.post(url + "hook", headers=headers, data="{}") as answer:
                assert 204 == answer.status
    came = {"event": "request.received", "path": "/hook", "bytes": 2}
    assert [
        came | {"webhook_id": "a", "attempt": "1", "retry": False},
        came | {"webhook_id": "a", "attempt": "2", "retry": True},
        came | {"webhook_id": "b", "attempt": "11", "retry": True},
        came | {"webhook_id": None, "attempt": None, "retry": False},
    ] == told


async def test_a_port_that_is_taken() -> None:
    """A port on which somebody listens is told by its number."""
    async with sinking(print) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            async with sinking(print, port):
                pytest.fail("listens")
