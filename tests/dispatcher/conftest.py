"""The event loop on which tests of the transport run."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import uvloop

# Workers run on uvloop, which reports closed connections and errors in another order than asyncio's loop.
_AS_A_WORKER: Final = {
    "test_transport_keep_alive.py",
    "test_transport_proxy.py",
    "test_transport_receivers.py",
    "test_transport_tls.py",
    "test_transport_headers.py",
    "test_transport_exhaustion.py",
    "test_transport_turns.py",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the factory for the loop of this test."""
    if item.path.name in _AS_A_WORKER:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
