"""Results about the audit log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hookseal.admin.results.base import HIDDEN
from hookseal.ground.literals import ContradictionName, StaleKindName


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A row of the audit log: who changed what. `before` and `after` have the facts; their text, if it is forged.

    `at` is the time as RFC 3339 in UTC, with microseconds. Somebody who forged it may have written one that no
    `datetime` has.
    """

    tenant_id: str
    sequence: int
    at: str
    actor: str
    action: str
    subject: str
    before: Mapping[str, Any] | str | None
    after: Mapping[str, Any] | str | None
    correlation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRow(AuditRow):
    """A row of the audit log with its MACs, in hex."""

    previous_mac: str
    mac: str
    mac_key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The last row of a tenant's audit log. One that is not `is_plausible` was not written by hookseal."""

    tenant_id: str
    head_sequence: int
    head_mac: str
    is_plausible: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHeads:
    """The head of each tenant's audit log."""

    tenants: tuple[AuditHead, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRow:
    """The first row of an audit log that is not as hookseal wrote it, and how it differs."""

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTenant:
    """A tenant's audit log up to its first broken row. The head is None if there is no row."""

    tenant_id: str
    rows: int
    head_sequence: int | None
    head_mac: str | None
    broken: BrokenRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContradictedHead:
    """A saved head that the log contradicts: the log is `older`, or `forked`. In JSON `how` has the name `is`."""

    tenant_id: str
    head_sequence: int
    head_mac: str
    how: ContradictionName = field(metadata={"printed": "is"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEndpoint:
    """An endpoint that contradicts the audit log or its MAC.

    `kind` is endpoint, if the row is older than the log says; record, if one of its secrets is; lost, if the row is
    gone; unaudited, if the log does not know its generation, so that somebody with the integrity key changed the row
    without an audit row; altered, if something other than hookseal changed it.
    """

    tenant_id: str
    endpoint_id: str
    kind: StaleKindName
    generation: int | None
    audited_generation: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLog:
    """Whether the audit log is as hookseal wrote it, each tenant's log, and the saved heads that it contradicts.

    `unaudited` are the endpoints whose rows have a generation that the log does not know: then it is not intact, as it
    lacks a change. For an export there are none.
    """

    intact: bool
    tenants: tuple[VerifiedTenant, ...]
    contradicted: tuple[ContradictedHead, ...]
    unaudited: tuple[StaleEndpoint, ...]
