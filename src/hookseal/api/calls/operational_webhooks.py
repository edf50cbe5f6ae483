"""Operational webhooks: the endpoints to which hookseal sends its own events, those of the tenant `_operator`.

Each call is one of endpoints, with this tenant. It needs an access for every tenant, since the events are about all.
"""

from dataclasses import replace
from typing import Any, Final

from hookseal.api.call import APP
from hookseal.api.calls import endpoints
from hookseal.api.calls.endpoints import EndpointIn, EndpointUpdate
from hookseal.ground.ids import OPERATOR_TENANT

_NAMES: Final = frozenset(
    {"list", "create", "get", "upsert", "delete", "get_secret", "rotate_secret", "get_headers", "set_headers"}
)


class OperationalEndpointIn(EndpointIn):
    """A new endpoint for the events of this server, which have no channels."""

    channels: None = None


class OperationalEndpointUpdate(EndpointUpdate):
    """All settings of an endpoint for the events of this server: what is left out gets its default."""

    channels: None = None


_BODIES: Final[dict[Any, type[Any]]] = {EndpointIn: OperationalEndpointIn, EndpointUpdate: OperationalEndpointUpdate}
CALLS: Final = tuple(
    replace(
        call,
        name=f"operational_webhook.{call.name}",
        path=call.path.replace(APP, "/api/v1/operational-webhook"),
        body=_BODIES.get(call.body, call.body),
        of_every_tenant=True,
        tenant=OPERATOR_TENANT,
    )
    for call in endpoints.CALLS
    if call.name.removeprefix("endpoint.") in _NAMES
)
