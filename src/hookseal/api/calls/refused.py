"""What Svix serves and hookseal does not do. It is refused by name, with the reason."""

from typing import Final

_APP: Final = "/api/v1/app/{app_id}"
_KEPT: Final = "what was sent is kept until its retention ends, because deliveries need it: nothing can be expunged"
_STREAMS: Final = "hookseal has no streams: it delivers webhooks"
_INGEST: Final = "hookseal receives no webhooks: it delivers them"
_TRANSFORMATIONS: Final = "hookseal changes no payload: there are no transformations"
_POLLING: Final = "messages cannot be polled: hookseal delivers webhooks"
_DASHBOARD: Final = "use authentication.app_portal_access"
_STATISTICS: Final = "use endpoint.get_stats, or the metrics of this server"

# By the path; `{rest:path}` is what follows.
REFUSED: Final = {
    _APP + "/msg/{msg_id}/content": _KEPT,
    _APP + "/msg/{msg_id}/attempt/{attempt_id}/content": _KEPT,
    _APP + "/msg/bulk-expunge": _KEPT,
    _APP + "/msg/expunge-all-contents": _KEPT,
    _APP + "/msg/precheck/active": "message.create tells how a message is delivered: there is no check before it",
    _APP + "/poller/{rest:path}": _POLLING,
    _APP + "/endpoint/{endpoint_id}/transformation": _TRANSFORMATIONS,
    _APP + "/endpoint/{endpoint_id}/oauth": "requests to an endpoint are signed: there is no OAuth",
    _APP + "/endpoint/{endpoint_id}/mtls": "an operator of this server sets client certificates",
    _APP + "/endpoint/{endpoint_id}/replay-missing": "use endpoint.recover, which sends again what failed",
    _APP + "/endpoint/{endpoint_id}/bulk-replay": "use endpoint.recover, which sends again what failed",
    _APP + "/endpoint/{endpoint_id}/attempt-stats": "use endpoint.get_stats",
    _APP + "/integration{rest:path}": "there are no integration keys: tokens have scopes",
    "/api/v1/stream{rest:path}": _STREAMS,
    "/api/v1/auth/stream{rest:path}": _STREAMS,
    "/ingest/{rest:path}": _INGEST,
    "/api/v1/auth/dashboard-access/{app_id}": _DASHBOARD,
    "/api/v1/stats/{rest:path}": _STATISTICS,
    "/api/v1/connector{rest:path}": "there are no connectors",
    "/api/v1/event-type/import/openapi": "event types are created one by one",
    "/api/v1/environment/{rest:path}": "an installation has no environments",
}
