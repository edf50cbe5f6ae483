"""The event loop on which tests of the transport run, and an installation with an endpoint."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import uvloop

from tests.doubles.stored import Installation

# Workers run on uvloop, which reports closed connections and errors in another order than asyncio's loop.
_AS_A_WORKER: Final = {"test_transport_connections.py", "test_transport_receivers.py", "test_transport_turns.py"}

# Each loop makes the TLS object of a connection in its own way.
_ON_BOTH: Final = {"test_tls_sessions.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in _AS_A_WORKER:
        return {"uvloop": uvloop.new_event_loop}
    if item.path.name in _ON_BOTH:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def stored(installation: Installation) -> Installation:
    """Return an installation with one endpoint of acme, which subscribes to everything."""
    await installation.endpoint()
    return installation
