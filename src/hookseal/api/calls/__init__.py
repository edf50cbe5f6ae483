"""The calls of the API, by subject: what each needs and takes, and how it is answered by one method of an `Admin`."""

from typing import Final

from hookseal.api.call import Call
from hookseal.api.calls import (
    applications,
    attempts,
    deliveries,
    endpoints,
    event_types,
    health,
    messages,
    operational_webhooks,
    own,
    portal,
    records,
    settings,
    tasks,
    tokens,
)

# The paths are compared in this order, so what is called most stands first.
CALLS: Final[tuple[Call, ...]] = (
    *messages.CALLS,
    *endpoints.CALLS,
    *attempts.CALLS,
    *applications.CALLS,
    *event_types.CALLS,
    *tasks.CALLS,
    *operational_webhooks.CALLS,
    *own.CALLS,
    *settings.CALLS,
    *deliveries.CALLS,
    *records.CALLS,
    *tokens.CALLS,
    *portal.CALLS,
    *health.CALLS,
)
