"""What a value of a request may be, as the document describes it. `Admin` and `Publisher` check it, not these types.

Each is made from what the check uses, so that the document says the same.
"""

from typing import Annotated, Any, Final

import msgspec

from hookseal.dispatcher.core import endpoint_rules, replay_job
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
TimeoutMs = Annotated[int, _whole(endpoint_rules.MIN_TIMEOUT_MS, endpoint_rules.MAX_TIMEOUT_MS)]
MaxAttempts = Annotated[int, _whole(1, endpoint_rules.MAX_ATTEMPTS)]
BackoffBase = Annotated[int, _whole(1, endpoint_rules.MAX_BACKOFF_BASE_SECONDS)]
BackoffCap = Annotated[int, _whole(1, endpoint_rules.MAX_BACKOFF_CAP_SECONDS)]
RetrySchedule = Annotated[
    list[Annotated[int, _whole(1, endpoint_rules.MAX_DELAY_SECONDS)]],
    _described(minItems=1, maxItems=endpoint_rules.MAX_DELAYS),
]
RotateEveryDays = Annotated[int, _whole(1, endpoint_rules.MAX_ROTATE_EVERY_DAYS)]
Concurrency = Annotated[int, _whole(1, endpoint_rules.MAX_CONCURRENCY)]
ReplayRate = Annotated[int, _whole(1, replay_job.MAX_RATE)]
