"""The results of an Admin. Each has the fields that the command prints with `--json`; no repr shows a secret.

Times have the zone UTC. A url and a snippet are left out of the repr, because they may contain what is confidential.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hookseal.secrets.material import SecretMaterial

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Result = TypeVar("Result", bound=DataclassInstance)
else:
    Result = TypeVar("Result")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Up to `limit` results. `next_cursor` is the cursor of the next page, None after the last one."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint in a list.

    `state` is the first that is true of: disabled; held, because a secret is refused or its breaker is open; stopped,
    by a delivery of an ordered endpoint that was given up; failing; healthy. `concurrency` is the most requests in
    flight, `rate` the most in a second. `lane` is what its lane waits for, None if it is open. If it is `ordered`,
    `on_dead_letter` says what a dead letter does to the others, stop or skip, and `stopped_by` is the delivery that was
    given up and stops them.
    """

    tenant_id: str
    endpoint_id: str
    state: str
    name: str | None
    url: str = field(repr=False)
    event_types: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    scheme: str
    algorithm: str
    generation: int
    concurrency: int | None
    rate: int | None
    ordered: bool
    on_dead_letter: str
    stopped_by: str | None
    lane: str | None
    created_at: datetime
    failing_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A failed attempt; `outcome` is one of docs/outcomes.md."""

    delivery_id: str
    event_id: str
    started_at: datetime
    outcome: str
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDetails(Endpoint):
    """An endpoint, the secrets that sign for it, and how many of its deliveries wait.

    `retry_schedule`, in seconds, replaces attempts and back-off. `tls` has the subject, the fingerprint and the expiry
    time of each of its certificates. `last_failure` is the last failed attempt among its newest thousand deliveries.
    `last_disabled_reason` and `last_disabled_at` say why and when it was disabled before it was enabled last.
    """

    disabled_at: datetime | None
    last_disabled_reason: str | None
    last_disabled_at: datetime | None
    timeout_ms: int
    max_attempts: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    retry_schedule: tuple[int, ...] | None
    attempts_allowed: int
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    previous_scheme: str | None
    previous_algorithm: str | None
    secret_provider: str | None
    secret_updated_at: datetime | None
    rotate_every_days: int | None
    header_names: tuple[str, ...]
    headers_ref: str | None
    tls: Mapping[str, Any] | None
    tls_ref: str | None
    lead: str
    has_plaintext: bool
    stale: bool
    pending_deliveries: int
    waiting_deliveries: int
    waiting_since: datetime | None
    waiting_for: tuple[str, ...]
    next_probe_at: datetime | None
    last_failure: FailedAttempt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """A new endpoint. `secret.reveal()` is what its receiver needs; for ed25519 that is the `public_key` instead."""

    tenant_id: str
    endpoint_id: str
    secret_ref: str
    generation: int
    secret: SecretMaterial | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatedEndpoint:
    """The fields that were changed, and the generation of the endpoint after that."""

    tenant_id: str
    endpoint_id: str
    generation: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """An endpoint that is enabled or disabled now. `changed`: it was not before.

    `woken` is the number of held deliveries that are released, 0 for a disabled endpoint. If it is ordered, `in_line`
    more wait behind delivery `line_head`. `probed`: it was enabled already, and its deliveries are held; the oldest of
    them is tried now.
    """

    tenant_id: str
    endpoint_id: str
    enabled: bool
    disabled_reason: str | None
    changed: bool
    woken: int
    probed: bool
    in_line: int = 0
    line_head: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedEndpoint:
    """An endpoint that was deleted, and how many of its pending deliveries were cancelled."""

    tenant_id: str
    endpoint_id: str
    cancelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A signed ping and its answer. `delivered`: the receiver answered with 2xx.

    `outcome` is one of docs/outcomes.md, None if the ping could not begin. `dialled` is the address that was used.
    `signed_by` has the references of the secrets that signed it.
    """

    tenant_id: str
    endpoint_id: str
    enabled: bool
    url: str = field(repr=False)
    delivered: bool
    outcome: str | None
    status: int | None
    detail: str | None
    duration_ms: int
    snippet: str | None = field(repr=False)
    dialled: str | None
    signed_by: tuple[str, ...]


def of_row(kind: "type[Result]", row: Mapping[str, Any], **more: Any) -> "Result":
    """Return the result with the values of the row that have the names of its fields, and `more`."""
    values = {**row, **more}
    return kind(**{each.name: _frozen(values[each.name]) for each in fields(kind)})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
