"""What Svix serves and hookseal does not do. It is refused by name: why, and what to use."""

from typing import Final

_APP: Final = "/api/v1/app/{app_id}"
_KEPT: Final = "what was sent is kept for deliveries, and nothing can be expunged: a setting of the server ends it"
_STREAMS: Final = "hookseal has no streams: publish messages, which are delivered to endpoints"
_INGEST: Final = "hookseal receives no webhooks: receive them yourself, and use message.create"
_TRANSFORMATIONS: Final = "hookseal changes no payload, it has no transformations: publish what receivers need"
_POLLING: Final = "messages cannot be polled: use endpoint.create, or message.list"
_DESTINATIONS: Final = "an application has endpoints, and no other destinations: use endpoint"
_AUTOCONFIG: Final = "nobody subscribes by a token: use endpoint.create, or authentication.app_portal_access"
_RECOVER: Final = "a task sends again what failed: use endpoint.recover, or hookseal.replay.start"

# By the path; `{rest:path}` is what follows.
REFUSED: Final = {
    _APP + "/msg/{msg_id}/content": _KEPT,
    _APP + "/msg/{msg_id}/attempt/{attempt_id}/content": _KEPT,
    _APP + "/msg/bulk-expunge": _KEPT,
    _APP + "/msg/expunge-all-contents": _KEPT,
    _APP + "/msg/precheck/active": "there is no check before a message: use endpoint.list",
    _APP + "/poller/{rest:path}": _POLLING,
    _APP + "/polling-endpoint/{rest:path}": _POLLING,
    _APP + "/destination{rest:path}": _DESTINATIONS,
    _APP + "/autoconfig{rest:path}": _AUTOCONFIG,
    _APP + "/endpoint/{endpoint_id}/auto-config": _AUTOCONFIG,
    _APP + "/endpoint/{endpoint_id}/transformation": _TRANSFORMATIONS,
    _APP + "/endpoint/{endpoint_id}/oauth": "there is no OAuth: requests are signed, and may have headers of yours",
    _APP + "/endpoint/{endpoint_id}/mtls": "a client certificate is set by an operator of this server: ask there",
    _APP + "/endpoint/{endpoint_id}/replay-missing": _RECOVER,
    _APP + "/endpoint/{endpoint_id}/bulk-replay": _RECOVER,
    _APP + "/endpoint/{endpoint_id}/attempt-stats": "attempts are not counted by time: use endpoint.get_stats",
    _APP + "/integration{rest:path}": "there are no integration keys: use hookseal.token.create, with scopes",
    "/api/v1/stream{rest:path}": _STREAMS,
    "/api/v1/auth/stream{rest:path}": _STREAMS,
    "/ingest/{rest:path}": _INGEST,
    "/api/v1/auth/dashboard-access/{app_id}": "it has another name: use authentication.app_portal_access",
    "/api/v1/stats/{rest:path}": "nothing is counted for a bill: use endpoint.get_stats, or the metrics of this server",
    "/api/v1/connector{rest:path}": "there are no connectors: use endpoint.create with a url and headers",
    "/api/v1/event-type/import/openapi": "event types are created one by one: use event_type.create",
    "/api/v1/environment/{rest:path}": "an installation has no environments: use event_type.list and event_type.create",
}
