"""The transport, as these settings want it."""

from hookseal.config.settings import Egress
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.transport import HttpTransport
from hookseal.dispatcher.trust import client_context
from hookseal.ground.clock import Clock


def transport(egress: Egress, clock: Clock) -> HttpTransport:
    """Return what a worker with these settings, and on this clock, sends with. It is to be entered."""
    return HttpTransport(
        AddressRules(egress.allow), trust=client_context(extra=egress.trusted), proxy=egress.proxy, clock=clock
    )
