"""AWS, as `moto` has it: the protocol over HTTP, without policies."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Final

import pytest
from botocore.loaders import JSONFileLoader, Loader
from botocore.session import Session, get_session

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
        with _descriptions_read_once():
            yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def _descriptions_read_once() -> Iterator[None]:
    """Let all sessions share the descriptions of services, which are large files: each would read them again."""
    known: dict[tuple[str, ...], Any] = {}

    def once(read: Any) -> Any:
        def shared(loader: object, *of: str) -> Any:
            key = (read.__name__, *of)
            if key not in known:
                known[key] = read(loader, *of)
            return known[key]

        return shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", once(JSONFileLoader.load_file))
        patch.setattr(Loader, "list_available_services", once(Loader.list_available_services))
        yield


class AwsClient:
    """A client that is not hookseal's: each of its calls waits in a thread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        return partial(asyncio.to_thread, getattr(self._client, operation))


@contextmanager
def aws_client(address: str, service: str) -> Iterator[AwsClient]:
    client = _session().create_client(
        service,
        region_name=REGION,
        endpoint_url=address,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        yield AwsClient(client)
    finally:
        client.close()


@cache
def _session() -> Session:
    """Return one session for all clients: the descriptions of services, which it reads, are large."""
    return get_session()
