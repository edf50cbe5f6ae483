"""Checks the arguments of an Admin before PostgreSQL is asked, and names each wrong one."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from hookseal.audit.chain import Head, parse_heads
from hookseal.config.settings import Egress
from hookseal.dispatcher.core import endpoint_rules, endpoint_settings, replay_job
from hookseal.dispatcher.core.endpoint_rules import disabled_reason
from hookseal.dispatcher.core.endpoint_settings import EndpointSettings
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.url import AddressRules, endpoint_url, url_problem
from hookseal.dispatcher.store import producers, tokens
from hookseal.dispatcher.store.delivery_queries import MAX_WALKED
from hookseal.dispatcher.store.endpoint_queries import Trouble
from hookseal.dispatcher.store.tenants import NewTenant
from hookseal.dispatcher.store.tokens import Scope
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import AttemptId, DeliveryId, EndpointId, EventId, Place, ReplayId, TenantId
from hookseal.ground.literals import Lead
from hookseal.ground.unset import UNSET, Unset
from hookseal.ground.wire import MAX_URL_CHARACTERS, header_name, require_headers
from hookseal.secrets.core import keyring, overlap
from hookseal.secrets.core.header_values import HeaderChange, Headers
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint import rotation as rotations
from hookseal.secrets.extras import tls_identity
from hookseal.secrets.store.retention import MOST_DAYS

T = TypeVar("T")
Member = TypeVar("Member", bound=StrEnum)
Value = TypeVar("Value")
Text = str | bytes
_MAX_ACTOR_CHARACTERS: Final = 128
_MAX_DESCRIPTION_CHARACTERS: Final = 4_096
_MAX_IDENTIFIER_CHARACTERS: Final = 256
_MAX_EVENT_TYPES: Final = 100
_MAX_IDS: Final = 250  # their bodies have at most 64 MB
_MAX_METADATA_BYTES: Final = 4_096
_MAX_SCHEMAS_BYTES: Final = 65_536
_FIRST_YEAR: Final = 2_000  # of a `readable_time`
_LAST_YEAR: Final = 9_000  # later times are not readable everywhere
# Arguments are numbers. The command line takes texts with a unit, such as 5s and 50/s, and makes numbers of them.
_UNITS: Final = {
    **{name: setting.unit for name, setting in endpoint_settings.SETTINGS.items()},
    "rate_per_second": " of deliveries a second, as in 50",
    "overlap_seconds": " of seconds, as in 86400",
}
_LEADS: Final[Mapping[str, Lead]] = {"previous": "previous", "current": "current"}
_MOST_TYPE_CHARACTERS: Final = 16_384  # of all event types of an endpoint: a list shows 250 endpoints


def actor(text: str) -> str:
    """Return the name for the audit log, if it has 1 to 128 printable characters. Raises `Malformed`."""
    _require(str, text, "actor")
    if not (1 <= len(text) <= _MAX_ACTOR_CHARACTERS and text.isprintable()):
        raise Malformed(f"actor must be 1 to {_MAX_ACTOR_CHARACTERS} printable characters", field="actor")
    return text


def enabled(value: bool, reason_of: str | None) -> str | None:  # noqa: FBT001 -- it is checked
    """Return the reason for which an endpoint is disabled, also if none is given; None if it is enabled.

    Raises `Malformed`.
    """
    if flag(value, "enabled"):
        if reason_of is not None:
            raise Malformed("reason is only for an endpoint that is disabled", field="reason")
        return None
    return reason(endpoint_rules.NO_REASON if reason_of is None else reason_of)


def reason(text: str) -> str:
    """Return the reason for disabling an endpoint. Raises `Malformed`."""
    return _text(disabled_reason, text, "reason")


def tenant_id(text: str) -> TenantId:
    """Return the tenant id, or `_operator`. Raises `Malformed`."""
    return _text(ids.owner_id, text, "tenant_id")


def customer_id(text: str) -> TenantId:
    """Return the tenant id of a customer, which is not `_operator`. Raises `Malformed`."""
    return _text(ids.tenant_id, text, "tenant_id")


def tenant_or_every(text: str) -> TenantId | None:
    """Return the tenant id, None for `*`, which means every tenant. Raises `Malformed`."""
    return None if text == ids.EVERY_TENANT else tenant_id(text)


def audited_tenant(text: str) -> TenantId | None:
    """Return the tenant of audit rows, also `_system`; None for `*`, which means every one. Raises `Malformed`."""
    return ids.SYSTEM_TENANT if text == ids.SYSTEM_TENANT else tenant_or_every(text)


def heads(text: str) -> tuple[Head, ...]:
    """Return the heads of the audit log that `hookseal audit heads --json` printed. Raises `Malformed`."""
    return _text(parse_heads, text, "heads")


def producer_role(text: str) -> str:
    """Return the name of a database role. Raises `Malformed`, and `Refused` for a group role of hookseal."""
    return _text(producers.role_name, text, "role")


def producer_tenant(text: str) -> TenantId:
    """Return the tenant that a producer may publish for; `*` is every tenant. Raises `Malformed`."""
    return _text(producers.producer_tenant, text, "tenant_id")


def customer_or_every(text: str) -> TenantId:
    """Return the tenant id of a customer, or `*`, every tenant. Raises `Malformed`."""
    return ids.EVERY_TENANT if text == ids.EVERY_TENANT else customer_id(text)


def tenant_or_uid(text: str) -> str:
    """Return the id or uid of a tenant. Raises `Malformed`."""
    return _text(ids.tenant_uid, text, "tenant_id")


def after(text: str) -> str:
    """Return the id with which a page ended. Raises `Malformed`."""
    return _text(ids.tenant_id, text, "after")


def new_tenant(id_: str | None, uid: str | None, name: str | None, metadata: Mapping[str, str] | None) -> NewTenant:
    """Return the tenant to add. Raises `Malformed`, also for a uid that could be the id of another tenant."""
    said = tenant_changes(uid, name, {} if metadata is None else metadata)
    owner = optional(customer_id, id_)
    if uid is not None and ids.may_be_tenant(uid):
        if owner not in {None, uid}:
            raise Malformed("uid could be the id of another tenant: leave tenant_id out, or give the same", field="uid")
        owner = TenantId(uid)
    return NewTenant(tenant_id=owner, **said)


def tenant_changes(
    uid: str | Unset | None, name: str | Unset | None, metadata: Mapping[str, str] | Unset
) -> dict[str, Any]:
    """Return what is said of a tenant, without what is not given. Raises `Malformed`."""
    changes = without_unset({"uid": uid, "name": name, "metadata": metadata})
    if changes.get("uid") is not None:
        changes["uid"] = _text(ids.tenant_uid, changes["uid"], "uid")
    if changes.get("name") is not None:
        changes["name"] = _text(endpoint_rules.label, changes["name"], "name")
    if "metadata" in changes:
        changes["metadata"] = metadata_of(changes["metadata"])
    return changes


def metadata_of(values: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata, texts by name, at most 4,096 bytes as JSON. Raises `Malformed`."""
    _require(Mapping, values, "metadata")
    for name, value in values.items():
        _require(str, name, "metadata")
        _require(str, value, "metadata")
        if b"\0" in encoded(f"{name}{value}", "metadata"):
            raise Malformed("metadata must not contain the character U+0000", field="metadata")
    if len(json.dumps(dict(values))) > _MAX_METADATA_BYTES:
        raise Malformed(f"metadata must be at most {_MAX_METADATA_BYTES} bytes as JSON", field="metadata")
    return dict(values)


def event_type_name(text: str, name: str = "name") -> str:
    """Return the name of an event type of the catalogue. Raises `Malformed`."""
    return _text(ids.event_type, text, name)


def event_type_changes(
    *, description: str | Unset, schemas: str | Unset | None, deprecated: bool | Unset, archived: bool | Unset
) -> dict[str, Any]:
    """Return what is said of an event type, without what is not given. Raises `Malformed`."""
    changes = without_unset({"description": description, "schemas": schemas})
    if "description" in changes:
        changes["description"] = _described(changes["description"])
    if changes.get("schemas") is not None:
        changes["schemas"] = _schemas(changes["schemas"])
    flags = without_unset({"deprecated": deprecated, "archived": archived})
    return changes | {name: flag(value, name) for name, value in flags.items()}


def _described(text: str) -> str:
    _require(str, text, "description")
    if len(text) > _MAX_DESCRIPTION_CHARACTERS or b"\0" in encoded(text, "description"):
        raise Malformed(
            f"description must be at most {_MAX_DESCRIPTION_CHARACTERS} characters, without NUL", field="description"
        )
    return text


def _schemas(text: str) -> str:
    """Return the JSON object of JSON schemas. Raises `Malformed`."""
    _require(str, text, "schemas")
    if len(encoded(text, "schemas")) > _MAX_SCHEMAS_BYTES:
        raise Malformed(f"schemas must be at most {_MAX_SCHEMAS_BYTES} bytes", field="schemas")
    try:
        found = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):
        raise Malformed("schemas must be a JSON object with a JSON schema for each version", field="schemas") from None
    if not all(found):
        raise Malformed("schemas must name each version", field="schemas")
    return text


def token_name(text: str) -> str:
    """Return the name of a token. Raises `Malformed`."""
    return _text(ids.token_name, text, "name")


def token_id(text: str) -> str:
    """Return the id of a token. Raises `Malformed`."""
    return _text(ids.token_id, text, "token_id")


def token_text(text: str, name: str = "token") -> bytes:
    """Return the text of a token or a code, which may be any, in UTF-8. Raises `Malformed` if it is no text."""
    _require(str, text, name)
    return text.encode("utf-8", "surrogatepass")


def scopes(names: Sequence[str]) -> tuple[Scope, ...]:
    """Return the scopes of a token, each once. Raises `Malformed`, which names all scopes."""
    for name in _list(names, "scopes"):
        _require(str, name, "scopes")
    return tokens.scopes(names)


def portal_scopes(names: Sequence[str], owner: TenantId) -> tuple[Scope, ...]:
    """Return the scopes of a portal of the tenant, each once.

    Raises `Malformed` also without `read`, and for more than `read` and `operate` if it is one of every tenant.
    """
    given = scopes(names)
    if owner == ids.EVERY_TENANT and {*given} - {Scope.READ, Scope.OPERATE}:
        raise Malformed(
            "scopes of a portal of every tenant may be read and operate only",
            advice="name them: --scope read --scope operate",
            field="scopes",
        )
    if Scope.READ not in given:
        raise Malformed("scopes of a portal must have read", field="scopes")
    return given


def user(text: str) -> str:
    """Return the user of a portal, for the audit log. Raises `Malformed`."""
    return _text(ids.user_name, text, "user")


def session_id(text: str) -> str:
    """Return the id of a session. Raises `Malformed`."""
    return _text(ids.session_id, text, "session_id")


def session_ids(texts: Sequence[str]) -> tuple[str, ...]:
    """Return up to 250 ids of sessions, each once. Raises `Malformed`."""
    given = _list(texts, "session_ids")
    return _several(ids.session_id, texts, "session_ids", "session ids") if given else ()


def refresh_url(text: str, *, allow_http: bool) -> str:
    """Return the address of a page of the product, which may have a fragment. Raises `Malformed`."""
    _require(str, text, "refresh_url")
    address, _, fragment = text.partition("#")
    wrong = url_problem(address, allow_http=True)
    if wrong is None and not (all("!" <= each <= "~" for each in fragment) and len(text) <= MAX_URL_CHARACTERS):
        wrong = f"must have visible ASCII characters only, at most {MAX_URL_CHARACTERS}"
    if wrong is None and not allow_http and address.lower().startswith("http:"):
        wrong = "must be https"
    if wrong is not None:
        raise Malformed(f"refresh_url {wrong}", field="refresh_url")
    return text


def seconds(value: int, name: str, *, least: int, most: int, advice: str | None = None) -> int:
    """Return the number of seconds, if it is within these bounds. Raises `Malformed`, with this advice."""
    whole(value, name)
    if not least <= value <= most:
        raise Malformed(f"{name} must be {least} to {most} seconds", advice=advice, field=name)
    return value


def expiry(at: datetime | None) -> datetime | None:
    """Return the time in UTC at which something expires, in the years that can be stored. Raises `Malformed`."""
    end = moment(at, "expires_at")
    if end is not None and not _FIRST_YEAR <= end.year < _LAST_YEAR:
        raise Malformed(f"expires_at must be a time in the future, before the year {_LAST_YEAR}", field="expires_at")
    return end


def endpoint_id(text: str) -> EndpointId:
    """Return the endpoint id. Raises `Malformed`."""
    return _text(ids.endpoint_id, text, "endpoint_id")


def endpoint(by_id: str | None, uid: str | None) -> dict[str, Any]:
    """Return the id or the uid of an endpoint, by its name. Raises `Malformed` unless exactly one of them is given."""
    if (by_id is None) == (uid is None):
        raise Malformed("give endpoint_id or uid, one of them", field="endpoint_id")
    if uid is None:
        return {"endpoint_id": optional(endpoint_id, by_id)}
    return {"uid": _text(endpoint_rules.endpoint_uid, uid, "uid")}


def key_id(text: str) -> str:
    """Return the id of a master key. Raises `Malformed`."""
    return _text(keyring.require_key_id, text, "key_id")


def delivery_id(text: str) -> DeliveryId:
    """Return the delivery id. Raises `Malformed`."""
    return _text(ids.delivery_id, text, "delivery_id")


def replay_id(text: str) -> ReplayId:
    """Return the id of a replay job. Raises `Malformed`."""
    return _text(ids.replay_id, text, "replay_id")


def event_id(text: str) -> EventId:
    """Return the event id. Raises `Malformed`."""
    return _text(ids.event_id, text, "event_id")


def event_ids(texts: Sequence[str]) -> tuple[EventId, ...]:
    """Return 1 to 250 event ids, each once. Raises `Malformed`."""
    return _several(ids.event_id, texts, "event_ids", "event ids")


def endpoint_ids(texts: Sequence[str]) -> tuple[EndpointId, ...]:
    """Return 1 to 250 endpoint ids, each once. Raises `Malformed`."""
    return _several(ids.endpoint_id, texts, "endpoint_ids", "endpoint ids")


def _several(check: Callable[[str], T], texts: Sequence[str], name: str, what: str) -> tuple[T, ...]:
    given = tuple(dict.fromkeys(_text(check, text, name) for text in _list(texts, name)))
    if not 1 <= len(given) <= _MAX_IDS:
        raise Malformed(f"{name} must be 1 to {_MAX_IDS} {what}", field=name)
    return given


def channel(text: str) -> str:
    """Return the name of a channel. Raises `Malformed`."""
    _require(str, text, "channel")
    return _parsed(ids.channels, [text], "channel")[0]


def correlation_id(text: str) -> str:
    """Return the correlation id. Raises `Malformed`."""
    return _text(ids.correlation_id, text, "correlation_id")


def identifier(text: str) -> str:
    """Return the text if it can be an id of something: 1 to 256 visible ASCII characters. Raises `Malformed`."""
    _require(str, text, "identifier")
    if not (1 <= len(text) <= _MAX_IDENTIFIER_CHARACTERS and text.isascii() and text.isprintable() and " " not in text):
        raise Malformed(
            f"identifier must be 1 to {_MAX_IDENTIFIER_CHARACTERS} visible ASCII characters", field="identifier"
        )
    return text


def event_type(text: str) -> str:
    """Return the event type. Raises `Malformed`."""
    return _text(ids.event_type, text, "event_type")


def attempt_id(text: str) -> AttemptId:
    """Return the id of an attempt. Raises `Malformed`."""
    return _text(ids.attempt_id, text, "attempt_id")


def event_types(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return 1 to 100 event types to select, None for all. Raises `Malformed`."""
    if texts is None:
        return None
    if not 1 <= len(given := _list(texts, "event_types")) <= _MAX_EVENT_TYPES:
        raise Malformed(f"event_types must be 1 to {_MAX_EVENT_TYPES} event types", field="event_types")
    return tuple(_text(ids.event_type, text, "event_types") for text in given)


def is_delivered(outcome: str | None) -> bool | None:
    """Return whether attempts with a 2xx answer are selected, or all others; None for both. Raises `Malformed`."""
    if outcome not in {None, "delivered", "failed"}:
        raise Malformed("outcome must be delivered or failed", field="outcome")
    return None if outcome is None else outcome == "delivered"


def status_class(value: int | None) -> int | None:
    """Return the first digit of a status, 1 to 5, or 0, no answer; None for all. Raises `Malformed`."""
    if optional_whole(value, "status_class") is not None and value not in range(6):
        raise Malformed("status_class must be 1 to 5, for 1xx to 5xx, or 0, for no answer", field="status_class")
    return value


def states(texts: Sequence[str]) -> tuple[State, ...]:
    """Return states in which a delivery has ended. Raises `Malformed`, which names all of them."""
    return replay_job.final_states(_list(texts, "states"))


def delivery_states(texts: Sequence[str]) -> tuple[State, ...]:
    """Return one or more states of deliveries, each once. Raises `Malformed`, which names all of them."""
    if not (given := _list(texts, "states")):
        raise Malformed(f"states must be one or more of {', '.join(State)}", field="states")
    return tuple(dict.fromkeys(choice(State, text, "states") for text in given))


def troubles(texts: Sequence[str]) -> tuple[Trouble, ...]:
    """Return one or more states for which an operator looks at endpoints, each once. Raises `Malformed`."""
    if not (given := _list(texts, "states")):
        raise Malformed(f"states must be one or more of {', '.join(Trouble)}", field="states")
    return tuple(dict.fromkeys(choice(Trouble, text, "states") for text in given))


def rate_per_second(value: int) -> int:
    """Return the deliveries a second of a replay job. Raises `Malformed`."""
    whole(value, "rate_per_second")
    return _parsed(replay_job.rate, str(value), "rate_per_second")


def signed_by(text: str) -> str:
    """Return the reference of a secret if it is a text. Raises `Malformed`."""
    _require(str, text, "signed_by")
    return text


def page(limit: int, cursor: str | None) -> None:
    """Return if the limit and the cursor of a list have the right types. Raises `Malformed`."""
    whole(limit, "limit")
    if cursor is not None:
        _require(str, cursor, "cursor")


def searched(value: int, most: int = MAX_WALKED) -> int:
    """Return how many rows a call may look at, 1 to `most`. Raises `Malformed`."""
    whole(value, "searched")
    if not 1 <= value <= most:
        raise Malformed(f"searched must be 1 to {most}", field="searched")
    return value


def place(
    cursor: str | None,
    after: str | None,
    before: str | None,
    *,
    oldest_first: bool,
    check: Callable[[str], str] = ids.endpoint_id,
) -> Place:
    """Return where a page of a list is; `check` raises `Malformed` for a text that is no id of it.

    Raises `Malformed`.
    """
    for name, text in (("after", after), ("before", before)):
        if text is not None:
            _text(check, text, name)
    flag(oldest_first, "oldest_first")
    return Place(after=after, before=before, cursor=cursor, oldest_first=oldest_first)


def flag(value: bool, name: str) -> bool:  # noqa: FBT001 -- it is checked
    """Return the flag if it is True or False. Raises `Malformed`."""
    _require(bool, value, name)
    return value


def optional(check: Callable[[str], T], text: str | None) -> T | None:
    """Return the checked value, None if it is None. Raises as `check` does."""
    return None if text is None else check(text)


def choice(kind: type[Member], text: str, name: str) -> Member:
    """Return the member of the enumeration. Raises `Malformed`, which names all members."""
    try:
        return kind(text)
    except ValueError:
        raise Malformed(f"{name} must be one of {', '.join(kind)}", field=name) from None


def provider(text: str, name: str) -> Provider:
    """Return the provider, one that keeps secrets for longer than a process lives. Raises `Malformed`."""
    _require(str, text, name)
    if text not in frozenset(Provider) - {Provider.DEV}:
        raise Malformed("the provider must be db, aws, gcp or openbao", field=name)
    return Provider(text)


def lead(text: str) -> Lead:
    """Return which secret leads in an overlap. Raises `Malformed`."""
    _require(str, text, "lead")
    if (known := _LEADS.get(text)) is None:
        raise Malformed("lead must be previous or current", field="lead")
    return known


def idempotency_key(text: str) -> str:
    """Return the key with which a client may repeat its request. Raises `Malformed`."""
    return _text(ids.idempotency_key, text, "idempotency_key")


def resend_id(text: str) -> str:
    """Return the id of a resend. Raises `Malformed`."""
    return _text(ids.resend_id, text, "resend_id")


def rotation_id(text: str) -> str:
    """Return the rotation id. Raises `Malformed`."""
    return _text(rotations.require_id, text, "rotation_id")


def overlap_seconds(value: int) -> int:
    """Return the overlap if it is 0 to 604,800 s. Raises `Malformed`."""
    whole(value, "overlap_seconds")
    return _parsed(overlap.require_overlap, value, "overlap_seconds")


def days(value: int) -> int:
    """Return `older_than_days`, 0 to 3,650. Raises `Malformed`."""
    whole(value, "older_than_days")
    if not 0 <= value <= MOST_DAYS:
        raise Malformed(f"older-than must be 0 to {MOST_DAYS} days", field="older_than_days")
    return value


def generation(value: int) -> int:
    """Return the generation, 1 or higher. Raises `Malformed`."""
    whole(value, "generation")
    if value < 1:
        raise Malformed("generation must be 1 or higher", field="generation")
    return value


def moment(at: datetime | None, name: str) -> datetime | None:
    """Return the time in UTC. Raises `Malformed` if it has no time zone, or a year that UTC does not have."""
    if at is None:
        return None
    _require(datetime, at, name, more=" with a time zone")
    if at.utcoffset() is None:
        raise Malformed(f"{name} must have a time zone: give for example datetime.now(UTC)", field=name)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise Malformed(f"{name} must be a time in the years 1 to 9999, in UTC", field=name) from None


def secret(value: Text | SecretMaterial) -> SecretMaterial:
    """Return the secret, from its text. Raises `Malformed`, which never contains it."""
    return value if isinstance(value, SecretMaterial) else SecretMaterial(encoded(value, "secret"))


def headers(values: Mapping[str, Text], name: str = "headers") -> Headers:
    """Return headers that may be sent, names in lower case. Raises `Malformed`, which never contains a value."""
    _require(Mapping, values, name)
    by_name: dict[str, str] = {}
    for spelled, value in values.items():
        header = _text(header_name, spelled, name)
        if header in by_name:
            raise Malformed(f"header {header} is given twice", field=name)
        _require(str | bytes, value, name)
        by_name[header] = value if isinstance(value, str) else value.decode("latin-1")
    _parsed(require_headers, by_name, name)
    return {header: SecretMaterial(value.encode("ascii")) for header, value in by_name.items()}


def header_change(values: Mapping[str, str | None]) -> HeaderChange:
    """Return the change that sets the headers which have a value, and removes the others. Raises `Malformed`."""
    name = "change_headers"
    _require(Mapping, values, name)
    removed = frozenset(_text(header_name, spelled, name) for spelled, value in values.items() if value is None)
    to_set = headers({spelled: value for spelled, value in values.items() if value is not None}, name)
    if removed & to_set.keys():
        raise Malformed(f"header {min(removed & to_set.keys())} is to be set and to be removed", field=name)
    return HeaderChange(given=to_set, removed=removed)


def client_certificate(certificates: Text | None, key: Text | None) -> tls_identity.ClientCertificate | None:
    """Return the client certificate with its key, both PEM. Raises `Malformed` if only one of them is given."""
    if (certificates is None) != (key is None):
        raise Malformed("client_cert and client_key belong together: give both", field="client_cert")
    if certificates is None or key is None:
        return None
    return tls_identity.client_certificate(encoded(certificates, "client_cert"), encoded(key, "client_key"))


def authorities(certificates: Text | None) -> tuple[bytes, ...]:
    """Return the certificates of the authorities in a PEM text. Raises `Malformed`."""
    if certificates is None:
        return ()
    return _parsed(tls_identity.authorities, encoded(certificates, "ca"), "ca")


def encoded(text: Text, name: str) -> bytes:
    """Return the text in UTF-8. Raises `Malformed` if it is no text, or cannot be encoded."""
    _require(str | bytes, text, name)
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name} must be text in UTF-8", field=name) from None


def whole(value: object, name: str) -> None:
    """Return if the value is a whole number. Raises `Malformed`, which says in which unit."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed(f"{name} must be a whole number{_UNITS.get(name, '')}", field=name)


def optional_whole(value: int | None, name: str) -> int | None:
    """Return the value if it is a whole number or None. Raises `Malformed`."""
    if value is not None:
        whole(value, name)
    return value


def expected(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields with the values that they should have. Raises `Malformed`."""
    if fields is None:
        return {}
    _require(Mapping, fields, "expect")
    return dict(fields)


def url(egress: Egress, owner: TenantId, text: str) -> str:
    """Return the url. Raises `Malformed`, and `Refused` for one to which these settings send nothing."""
    _require(str, text, "url")
    return endpoint_url(text, allow_http=egress.allow_http, allowed=AddressRules(egress.allow).networks_for(owner))


def subscriptions(event_types: Sequence[str]) -> tuple[str, ...]:
    """Return the event types that an endpoint gets, each once. Raises `Malformed`."""
    for each in _list(event_types, "event_types"):
        _require(str, each, "event_types")
    distinct = tuple(_parsed(lambda texts: dict.fromkeys(map(ids.subscription, texts)), event_types, "event_types"))
    if not distinct:
        raise Malformed("event_types must have at least one event type", field="event_types")
    if sum(map(len, distinct)) > _MOST_TYPE_CHARACTERS:
        raise Malformed(
            f"event_types must have at most {_MOST_TYPE_CHARACTERS} characters in all: one as invoice.* stands for "
            "several",
            field="event_types",
        )
    return distinct


def endpoint_settings_of(values: Mapping[str, Any], *, new: bool) -> EndpointSettings:
    """Return the settings that are given, each of its type and within its rules.

    They have the order in which they are declared. A `new` endpoint may have None as its name, which is none. Of one
    that is there, a fixed setting is refused. Raises `Malformed`, `Refused`, and `TypeError` for another name.
    """
    declared, all_given = endpoint_settings.SETTINGS, without_unset(values)
    if unknown := sorted(all_given.keys() - declared.keys()):
        raise TypeError(f"an endpoint has no setting {unknown[0]!r}")
    given = {name: all_given[name] for name in declared if name in all_given}
    if new and given.get("name", "") is None:
        del given["name"]
    for name, value in given.items():
        if not new and (refusal := declared[name].fixed) is not None:
            raise refusal()
        if value is not None or not declared[name].removable:
            _require_kind(endpoint_settings.kind(name), value, name)
    decided = endpoint_settings.within_rules(given)
    if new:
        endpoint_rules.require_order(
            ordered=decided.get("ordered", False), on_dead_letter=decided.get("on_dead_letter")
        )
    return decided


def without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that were given: all that are not `UNSET`."""
    return {name: value for name, value in values.items() if value is not UNSET}


def _require_kind(kind: type, value: Any, name: str) -> None:
    """Raise `Malformed` unless the value is of the type of a setting; a list or mapping has texts, or numbers."""
    if kind is int:
        whole(value, name)
    elif kind is Mapping:
        _require(Mapping, value, name)
        for text in chain.from_iterable(value.items()):
            _require(str, text, name)
    elif kind is Sequence:
        for each in _list(value, name):
            _require_kind(endpoint_settings.kind_of_items(name), each, name)
    elif kind is bool and not isinstance(value, bool):
        raise Malformed(f"{name} must be true or false", field=name)
    else:
        _require(str if issubclass(kind, str) else kind, value, name)


def _text(check: Callable[[str], T], text: str, name: str) -> T:
    _require(str, text, name)
    return _parsed(check, text, name)


def _parsed(check: Callable[[Value], T], value: Value, name: str) -> T:
    try:
        return check(value)
    except Malformed as error:
        error.field = name
        raise


def _list(values: object, name: str) -> Collection[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        raise Malformed(f"{name} must be a list, not of the type {type(values).__name__}", field=name)
    return values


def _require(kind: Any, value: object, name: str, *, more: str = "") -> None:
    if not isinstance(value, kind):
        expected = f"{kind.__name__ if isinstance(kind, type) else kind}{more}"
        raise Malformed(f"{name} must be of the type {expected}, not {type(value).__name__}", field=name)
