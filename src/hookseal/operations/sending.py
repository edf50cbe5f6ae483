"""The transport, and whom it trusts, as these settings want it."""

import ssl
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hookseal.config.settings import Egress
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.observation import Observing
from hookseal.dispatcher.ports import Transport
from hookseal.dispatcher.trust import client_context
from hookseal.ground.clock import Clock
from hookseal.secrets.tls_context import Trust


class Sending(Transport, Observing, Protocol):
    """A transport that also reports the way that a request took."""


def trust(egress: Egress) -> Trust:
    """Return what makes contexts for endpoints with a TLS identity: trusting these alone, or whom all others do."""

    def context(alone: str | None) -> ssl.SSLContext:
        return client_context(extra=egress.trusted if alone is None else alone, only=alone is not None)

    return context


def transport(egress: Egress, clock: Clock) -> AbstractAsyncContextManager[Sending]:
    """Return what a worker with these settings, and on this clock, sends with. It is to be entered."""
    from hookseal.dispatcher.transport import HttpTransport  # noqa: PLC0415 -- it loads aiohttp: most commands send nothing

    return HttpTransport(
        AddressRules(egress.allow), trust=client_context(extra=egress.trusted), proxy=egress.proxy, clock=clock
    )
