"""Checks the values that somebody gives for an endpoint, before the database is asked."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from hookseal.config.settings import Egress
from hookseal.dispatcher.core import endpoint_rules
from hookseal.dispatcher.core.url import AddressRules, endpoint_url
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import TenantId

_MOST_CHARACTERS: Final = 16_384  # of all event types of an endpoint: a list shows 250 endpoints
_RULES: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "timeout_ms": endpoint_rules.timeout_ms,
        "name": endpoint_rules.endpoint_name,
        "uid": endpoint_rules.endpoint_uid,
        "description": endpoint_rules.description,
        "metadata": endpoint_rules.metadata,
        "channels": ids.channels,
        "max_attempts": endpoint_rules.max_attempts,
        "backoff_base_seconds": endpoint_rules.backoff_base_seconds,
        "backoff_cap_seconds": endpoint_rules.backoff_cap_seconds,
        "retry_schedule": endpoint_rules.retry_delays,
        "rotate_every_days": endpoint_rules.rotate_every_days,
        "concurrency": endpoint_rules.concurrency,
        "rate": endpoint_rules.requests_a_second,
        "on_dead_letter": endpoint_rules.on_dead_letter,
    }
)
_MAY_BE_REMOVED: Final = frozenset({"uid", "retry_schedule", "rotate_every_days", "concurrency", "rate"})
_REPLACED_BY_SCHEDULE: Final = frozenset({"max_attempts", "backoff_base_seconds", "backoff_cap_seconds"})


def checked(egress: Egress, tenant: TenantId, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given fields of an endpoint, each within its rules, and each event type once.

    A uid, a schedule, a limit or a period of rotation may be None, to remove it. Raises `Malformed` with the field,
    also for a schedule together with what it replaces, and `Refused` for a url to which these settings send nothing.
    """
    return _within({**_RULES, "url": partial(_url, egress, tenant), "event_types": _subscriptions}, fields)


def _within(rules: Mapping[str, Callable[[Any], Any]], fields: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        name: None if value is None and name in _MAY_BE_REMOVED else rules[name](value)
        for name, value in fields.items()
    }
    if values.get("retry_schedule") is not None and values.keys() & _REPLACED_BY_SCHEDULE:
        raise Malformed(
            "retry_schedule replaces max_attempts, backoff_base_seconds and backoff_cap_seconds: give it without them",
            field="retry_schedule",
        )
    return values


def _url(egress: Egress, tenant: TenantId, text: str) -> str:
    allowed = AddressRules(egress.allow).networks_for(tenant)
    return endpoint_url(text, allow_http=egress.allow_http, allowed=allowed)


def _subscriptions(event_types: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(map(ids.subscription, event_types)))
    if not distinct:
        raise Malformed("event_types must have at least one event type", field="event_types")
    if sum(map(len, distinct)) > _MOST_CHARACTERS:
        raise Malformed(
            f"event_types must have at most {_MOST_CHARACTERS} characters in all: one as invoice.* stands for several",
            field="event_types",
        )
    return distinct
