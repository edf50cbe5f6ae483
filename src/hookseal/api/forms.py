"""What a value of a request may be, as the document describes it. `Admin` and `Publisher` check it, not these types.

Each is made from what the check uses, so that the document says the same.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from hookseal.dispatcher.core import endpoint_rules, endpoint_settings, replay_job
from hookseal.dispatcher.core.endpoint_settings import SETTINGS
from hookseal.ground.ids import EVENT_TYPE_MAX, FORMS
from hookseal.ground.wire import MAX_HEADERS, MAX_URL_CHARACTERS
from hookseal.secrets.core.overlap import MAX_OVERLAP_SECONDS

MAX_APPLICATION_CHARACTERS: Final = endpoint_rules.MAX_REASON_CHARACTERS
_END: Final = r"\Z"  # of an expression of Python


def _described(**schema: Any) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema=schema)


def _form(pattern: str, most: int | None = None) -> msgspec.Meta:
    """Return the description of a text of this form; in ECMA `$` is the end and nothing else."""
    expression = f"^(?:{pattern.replace(_END, '$')})$"
    return _described(pattern=expression) if most is None else _described(pattern=expression, maxLength=most)


def _whole(least: int, most: int) -> msgspec.Meta:
    return _described(minimum=least, maximum=most)


AppUid = Annotated[str, _form(FORMS["tenant_uid"])]
AppName = Annotated[str, _described(minLength=1, maxLength=MAX_APPLICATION_CHARACTERS)]
TenantOrEvery = Annotated[str, _form(rf"\*|{FORMS['tenant_id']}")]
TokenName = Annotated[str, _form(FORMS["tenant_id"])]
EventId = Annotated[str, _form(FORMS["event_id"])]
EventType = Annotated[str, _form(FORMS["event_type"], EVENT_TYPE_MAX)]
Subscription = Annotated[str, _form(FORMS["subscription"], EVENT_TYPE_MAX)]
Channel = Annotated[str, _form(FORMS["channel"])]
Url = Annotated[str, _described(format="uri", maxLength=MAX_URL_CHARACTERS)]
EndpointUid = Annotated[str, _form(endpoint_rules.UID_FORM, endpoint_rules.MAX_UID_CHARACTERS)]
EndpointName = Annotated[str, _described(minLength=1, maxLength=endpoint_rules.MAX_NAME_CHARACTERS)]
Description = Annotated[str, _described(maxLength=endpoint_rules.MAX_DESCRIPTION_CHARACTERS)]
Metadata = Annotated[
    dict[str, str],
    _described(
        maxProperties=endpoint_rules.MAX_METADATA,
        propertyNames={"minLength": 1, "maxLength": endpoint_rules.MAX_METADATA_KEY_CHARACTERS},
    ),
]
Headers = Annotated[dict[str, str], _described(maxProperties=MAX_HEADERS)]
ThrottleRate = Annotated[int, _whole(1, endpoint_rules.MAX_RATE)]
GracePeriod = Annotated[int, _whole(0, MAX_OVERLAP_SECONDS)]
ReplayRate = Annotated[int, _whole(1, replay_job.MAX_RATE)]


def form(name: str) -> Any:
    """Return the type of a setting of an endpoint in a request, as the document describes it."""
    kind, setting = endpoint_settings.kind(name), SETTINGS[name]
    one: Any = kind
    if issubclass(kind, StrEnum):
        one = Literal[tuple(map(str, kind))]
    elif kind is Sequence:
        one = list[_limited(endpoint_settings.kind_of_items(name), setting.schema_of_items)]  # type: ignore[misc]
    return _limited(one, setting.schema)


def _limited(kind: Any, schema: Mapping[str, Any]) -> Any:
    return Annotated[kind, _described(**schema)] if schema else kind


def shown_as(name: str) -> Any:
    """Return the type of a setting of an endpoint in an answer."""
    kind = endpoint_settings.kind(name)
    if kind is Sequence:
        return list[endpoint_settings.kind_of_items(name)] | None  # type: ignore[misc]
    one: Any = str if issubclass(kind, StrEnum) else kind
    return one | None if type(None) in get_args(endpoint_settings.TYPES[name]) else one
