"""The transport for pings, and the authorities that it trusts, by the settings."""

import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from hookseal.config.settings import Egress
from hookseal.dispatcher.core.ports import Transport
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.observation import Observing
from hookseal.dispatcher.http.trust import client_context
from hookseal.ground.clock import Clock
from hookseal.ground.version import VERSION
from hookseal.secrets.extras.tls_context import Trust


class ObservingTransport(Transport, Observing, Protocol):
    """A transport that also reports the network path of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """The means to send a ping in the same way as a delivery."""

    transport: ObservingTransport
    clock: Clock
    allow_http: bool
    user_agent: str


def trust(egress: Egress) -> Trust:
    """Return the factory of TLS contexts: they trust the given authorities only, or those of all other endpoints."""

    def context(alone: str | None) -> ssl.SSLContext:
        return client_context(extra=egress.trusted if alone is None else alone, only=alone is not None)

    return context


def transport(egress: Egress, clock: Clock) -> AbstractAsyncContextManager[ObservingTransport]:
    """Return the transport of a worker with these settings and this clock, to use in an `async with`."""
    from hookseal.dispatcher.http.transport import HttpTransport  # noqa: PLC0415 -- it loads aiohttp: most commands send nothing

    return HttpTransport(
        AddressRules(egress.allow), trust=client_context(extra=egress.trusted), proxy=egress.proxy, clock=clock
    )


def as_worker(opened: ObservingTransport, egress: Egress, clock: Clock) -> Sending:
    """Return the means to send a ping through the transport as a worker with these settings does."""
    return Sending(transport=opened, clock=clock, allow_http=egress.allow_http, user_agent=f"hookseal/{VERSION}")
