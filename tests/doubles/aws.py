"""AWS, as `moto` has it: the protocol over HTTP, without policies."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Final

from aiobotocore.session import AioSession, get_session

REGION: Final = "eu-central-1"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "of-the-tests", "AWS_SECRET_ACCESS_KEY": "of-the-tests"}


@contextmanager
def running_aws() -> Iterator[str]:
    """Run one for several tests, in a thread, and give its address."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 -- it takes two seconds to load

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@asynccontextmanager
async def aws_client(address: str, service: str) -> AsyncIterator[Any]:
    """Give a client of that service."""
    async with _session().create_client(
        service,
        region_name=REGION,
        endpoint_url=address,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    ) as client:
        yield client


@cache
def _session() -> AioSession:
    """Return one session for all clients: the descriptions of services, which it reads, are large."""
    return get_session()
