"""The official Python client of Svix."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from svix.api import SvixAsync, SvixOptions


@asynccontextmanager
async def official(token: str, url: str) -> AsyncIterator[SvixAsync]:
    """Yield a client that repeats nothing, and close its connections."""
    client = SvixAsync(token, SvixOptions(server_url=url, retry_schedule=[]))
    try:
        yield client
    finally:
        await client._httpx_client.aclose()  # it has no method for that
