"""Identifiers: each kind has a type of its own and exactly one valid form."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NewType
from uuid import UUID

from hookseal.errors import Malformed

TenantId = NewType("TenantId", str)
EndpointId = NewType("EndpointId", str)
DeliveryId = NewType("DeliveryId", str)
EventId = NewType("EventId", str)
AttemptId = NewType("AttemptId", str)
ReplayId = NewType("ReplayId", str)

SYSTEM_TENANT: Final = TenantId("_system")
OPERATOR_TENANT: Final = TenantId("_operator")
EVERY_TENANT: Final = TenantId("*")  # the id of no tenant
RESERVED_TENANTS: Final = frozenset({SYSTEM_TENANT, OPERATOR_TENANT})

_TENANT_RULE: Final = "1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
_UID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,256}")  # clients take `.` and `..` in a path as steps
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_RESEND_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_MAX_INTEGER = 2**31 - 1
_EVENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:-]{1,256}")
_WORDS = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_EVENT_TYPE = re.compile(_WORDS)
_SUBSCRIPTION = re.compile(rf"\*|{_WORDS}(?:\.\*)?")
EVENT_TYPE_MAX: Final = 128
_CHANNEL = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_VISIBLE = re.compile(r"[!-~]{1,128}")
_IDEMPOTENCY_KEY = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
_USER = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
# The forms of texts, for a description of them: `Malformed` is raised for every other one.
FORMS: Final = MappingProxyType(
    {
        "uuid": _UUID.pattern,
        "uuid7": _UUID7.pattern,
        "tenant_id": _TENANT.pattern,
        "tenant_uid": _UID.pattern,
        "event_id": _EVENT.pattern,
        "event_type": _EVENT_TYPE.pattern,
        "subscription": _SUBSCRIPTION.pattern,
        "channel": _CHANNEL.pattern,
    }
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def tenant_id(text: str) -> TenantId:
    """Return the tenant id, in which case counts; reserved tenants (`_system`, `_operator`) are refused.

    Raises `Malformed`.
    """
    if not may_be_tenant(text):
        raise Malformed(f"tenant must be {_TENANT_RULE}", field="tenant_id")
    return TenantId(text)


def may_be_tenant(text: str) -> bool:
    """Return whether the text has the form of the id of a tenant."""
    return _TENANT.fullmatch(text) is not None


def tenant_uid(text: str) -> str:
    """Return the name that a product gave a tenant, which may also be its id. Raises `Malformed`."""
    if text in RESERVED_TENANTS or not _UID.fullmatch(text):
        raise Malformed(
            "uid must be 1 to 256 characters of A-Z, a-z, 0-9, '.', '_' and '-', not '.' or '..', and not be reserved",
            field="tenant_id",
        )
    return text


def owner_id(text: str) -> TenantId:
    """Return the tenant id of an owner of endpoints: a tenant, or `_operator`, the operator. Raises `Malformed`."""
    return OPERATOR_TENANT if text == OPERATOR_TENANT else tenant_id(text)


def token_name(text: str) -> str:
    """Return the name of a token, by which the audit log names it. Raises `Malformed`."""
    if not may_be_tenant(text):
        raise Malformed(f"name must be {_TENANT_RULE}", field="name")
    return text


def token_id(text: str) -> str:
    """Return the id of a token, a UUIDv7 in lower case. Raises `Malformed`."""
    if not _UUID7.fullmatch(text):
        raise Malformed("token id must be a UUIDv7 in lower case", field="token_id")
    return text


def idempotency_key(text: str) -> str:
    """Return the key with which a client may repeat its request. Raises `Malformed`."""
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise Malformed("idempotency key must be 1 to 256 visible ASCII characters", field="idempotency_key")
    return text


def user_name(text: str) -> str:
    """Return the name of a user of the product, for the audit log. Raises `Malformed`."""
    if not may_be_user(text):
        raise Malformed("user must be 1 to 64 visible ASCII characters, with spaces only between them", field="user")
    return text


def may_be_user(text: str) -> bool:
    """Return whether the text has the form of the name of a user."""
    return _USER.fullmatch(text) is not None


def session_id(text: str) -> str:
    """Return the id of a session of the product, 1 to 128 visible ASCII characters. Raises `Malformed`."""
    if not _VISIBLE.fullmatch(text):
        raise Malformed("session id must be 1 to 128 visible ASCII characters", field="session_id")
    return text


def token_actor(name: str, user: str | None) -> str:
    """Return how the audit log names who uses a token: `token:NAME`, or `token:NAME/USER` if its user is known."""
    return f"token:{name}" if user is None else f"token:{name}/{user}"


def endpoint_id(text: str) -> EndpointId:
    """Return the endpoint id, a UUID in lower case. Raises `Malformed`.

    hookseal creates UUIDv7; an endpoint that was imported from another system keeps the id that its receivers know.
    """
    if not _UUID.fullmatch(text):
        raise Malformed("endpoint id must be a UUID in lower case", field="endpoint_id")
    return EndpointId(text)


def delivery_id(text: str) -> DeliveryId:
    """Return the delivery id, a UUIDv7 in lower case. Raises `Malformed`."""
    if not _UUID7.fullmatch(text):
        raise Malformed("delivery id must be a UUIDv7 in lower case", field="delivery_id")
    return DeliveryId(text)


def attempt_id(text: str) -> AttemptId:
    """Return the id of an attempt: that of its delivery, a dot and its number, from 1. Raises `Malformed`."""
    delivery, dot, number = text.partition(".")
    if not (dot and _UUID7.fullmatch(delivery) and _NUMBER.fullmatch(number) and int(number) <= _MAX_INTEGER):
        raise Malformed("attempt id must be a delivery id, a dot and a number from 1", field="attempt_id")
    return AttemptId(text)


def parts_of(attempt: AttemptId) -> tuple[DeliveryId, int]:
    """Return the id of the delivery, and the number of the attempt."""
    delivery, _, number = attempt.partition(".")
    return DeliveryId(delivery), int(number)


def replay_id(text: str) -> ReplayId:
    """Return the id of a replay job, a UUIDv7 in lower case. Raises `Malformed`."""
    if not _UUID7.fullmatch(text):
        raise Malformed("replay id must be a UUIDv7 in lower case", field="replay_id")
    return ReplayId(text)


def resend_id(text: str) -> str:
    """Return the id of a resend if it is valid. Raises `Malformed`."""
    if not _RESEND_ID.fullmatch(text):
        raise Malformed("resend id must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'", field="resend_id")
    return text


def first_uuid7(at: datetime) -> str:
    """Return the lowest UUIDv7 of the millisecond of that time: every one that is made later is higher."""
    return _lowest_uuid7((at - _EPOCH) // _MILLISECOND)


def first_uuid7_after(at: datetime) -> str:
    """Return the lowest UUIDv7 of the first millisecond that is not before that time: every earlier one is lower."""
    return _lowest_uuid7(-((_EPOCH - at) // _MILLISECOND))


def uuid7_made_at(text: str) -> datetime | None:
    """Return when this UUIDv7 was made, to the millisecond; None for any other UUID, and after the year 9999."""
    if text[14:15] != "7":
        return None
    try:
        return _EPOCH + int(text[:8] + text[9:13], 16) * _MILLISECOND
    except OverflowError:
        return None


def _lowest_uuid7(milliseconds: int) -> str:
    digits = f"{max(milliseconds, 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def event_id(text: str) -> EventId:
    """Return the event id. Raises `Malformed`, also for `.` and `..`, which the path of a url drops."""
    if not _EVENT.fullmatch(text):
        raise Malformed(
            "event id must be 1 to 256 characters of A-Z, a-z, 0-9, '_', '.', ':' and '-', and not '.' or '..'",
            field="event_id",
        )
    return EventId(text)


def correlation_id(text: str) -> str:
    """Return the correlation id, 1 to 128 visible ASCII characters. Raises `Malformed`."""
    if not _VISIBLE.fullmatch(text):
        raise Malformed("correlation id must be 1 to 128 visible ASCII characters", field="correlation_id")
    return text


def event_type(text: str) -> str:
    """Return the event type, for instance `invoice.paid`. Raises `Malformed`."""
    if len(text) > EVENT_TYPE_MAX or not _EVENT_TYPE.fullmatch(text):
        raise Malformed(
            "event type must be words of A-Z, a-z, 0-9, '_' and '-', separated by dots, at most 128 characters",
            field="event_type",
        )
    return text


def subscription(text: str) -> str:
    """Return the subscription: an event type, a prefix that ends in `.*`, or `*`. Raises `Malformed`."""
    if len(text) > EVENT_TYPE_MAX or not _SUBSCRIPTION.fullmatch(text):
        raise Malformed(
            "event type must be words of A-Z, a-z, 0-9, '_' and '-', separated by dots, at most 128 characters; "
            "it may end in '.*', or be '*'",
            field="event_type",
        )
    return text


MAX_CHANNELS: Final = 10


def channels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the channels of an event or of an endpoint, each once.

    Raises `Malformed` for more than 10, or for a name that is not 1 to 128 characters of its grammar.
    """
    distinct = tuple(dict.fromkeys(names))
    if len(distinct) > MAX_CHANNELS or not all(map(_CHANNEL.fullmatch, distinct)):
        raise Malformed(
            f"channels must be at most {MAX_CHANNELS} names, each 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' "
            "and '-'",
            field="channels",
        )
    return distinct


MAX_PAGE: Final = 1_000


def require_limit(limit: int) -> None:
    """Raise `Malformed` unless a page may have so many rows: 1 to 1000."""
    if not 1 <= limit <= MAX_PAGE:
        raise Malformed(f"limit must be 1 to {MAX_PAGE}", field="limit")


def encode_cursor(position: str) -> str:
    """Return the cursor for the position at which a page ended."""
    return base64.urlsafe_b64encode(position.encode()).decode()


def decode_cursor(cursor: str) -> str:
    """Return the position that the cursor encodes. Raises `Malformed` if it encodes none."""
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise invalid_cursor() from None


def invalid_cursor() -> Malformed:
    """Return the error for a cursor that no page returned."""
    return Malformed("cursor must be one that an earlier page returned", field="cursor")


def paged(rows: list[Any], limit: int, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the page, and the cursor of the next one, None after the last.

    `rows` holds one more than the page if there is one more; the column `name` holds their id.
    """
    items = [dict(row) for row in rows[:limit]]
    return items, encode_cursor(items[-1][name]) if len(rows) > limit else None


def before(cursor: str | None) -> str | None:
    """Return the id that a page ended with, None without a cursor. Raises `Malformed` if no page gave the cursor."""
    if cursor is None:
        return None
    text = decode_cursor(cursor)
    try:
        if text == str(UUID(text)):
            return text
    except ValueError:
        pass
    raise invalid_cursor()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page of a list by ids is: in which order the list is, and after or before which id the page comes.

    At most one of `after`, `before` and `cursor`, of an earlier page in the same order, is given; none is the beginning
    of the list. The list is in the order of falling ids, or of rising ones if it is `oldest_first`.
    """

    after: str | None = None
    before: str | None = None
    cursor: str | None = None
    oldest_first: bool = False

    def __post_init__(self) -> None:
        """Raise `Malformed` if more than one of them is given."""
        given = [name for name in ("after", "before", "cursor") if getattr(self, name) is not None]
        if len(given) > 1:
            raise Malformed(f"give {given[0]} or {given[1]}, not both", field=given[1])

    @property
    def begins_with(self) -> str | None:
        """The id beside the page, None if there is none. Raises `Malformed` for a cursor that no page returned."""
        return self.after or self.before or before(self.cursor)

    @property
    def begins_with_attempt(self) -> AttemptId | None:
        """The same in a list of attempts."""
        if self.cursor is None:
            return None if self.after is self.before else AttemptId(self.after or self.before or "")
        try:
            return attempt_id(decode_cursor(self.cursor))
        except Malformed:
            raise invalid_cursor() from None

    @property
    def is_rising(self) -> bool:
        """Whether the rows are to be read by rising ids. A page before an id is read backwards, from that id on."""
        return self.oldest_first != (self.before is not None)

    def page(self, rows: list[Any], limit: int, name: str) -> tuple[list[dict[str, Any]], str | None]:
        """Return the page in the order of the list, and the cursor of the next one, None after the last.

        `rows` are as they were read, one more than the page if there is one more; the column `name` has their id. What
        follows a page before an id begins with that id.
        """
        if self.before is None:
            return paged(rows, limit, name)
        items = [dict(row) for row in reversed(rows[:limit])]
        return items, encode_cursor(items[-1][name]) if items else None


def plural(number: int, one: str, many: str) -> str:
    """Return the number with the singular or the plural: `1 worker does`, `3 workers do`."""
    return f"{number} {one if number == 1 else many}"
