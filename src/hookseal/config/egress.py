"""The networks that may be dialled although they are not public."""

from ipaddress import ip_network

from hookseal.dispatcher.address import AllowedNetwork
from hookseal.ground.errors import Malformed
from hookseal.ground.ids import tenant_id


def networks(text: str) -> tuple[AllowedNetwork, ...]:
    """Return the networks of a comma list of `CIDR` or `CIDR@tenant`. Raises `ValueError`, without the value."""
    return tuple(_network(item.strip()) for item in text.split(","))


def _network(text: str) -> AllowedNetwork:
    network, at, tenant = text.partition("@")
    try:
        return AllowedNetwork(network=ip_network(network), tenant=tenant_id(tenant) if at else None)
    except Malformed:
        raise ValueError from None
