"""The transport, as these settings want it."""

from hookseal.config.settings import Egress
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.transport import HttpTransport
from hookseal.dispatcher.trust import client_context


def transport(egress: Egress) -> HttpTransport:
    """Return what a worker with these settings sends with. It is to be entered."""
    return HttpTransport(AddressRules(egress.allow), trust=client_context(extra=egress.trusted), proxy=egress.proxy)
