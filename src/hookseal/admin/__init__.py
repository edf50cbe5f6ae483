"""Admin: the management of endpoints, secrets, deliveries and events, for products in Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each is loaded when it is asked for: a command begins at once, and loads what it prints
    from hookseal.admin.admin import Admin
    from hookseal.admin.imports import ImportRow
    from hookseal.admin.results.audit import (
        AuditHead,
        AuditHeads,
        AuditRow,
        BrokenRow,
        ContradictedHead,
        ExportedRow,
        StaleEndpoint,
        VerifiedLog,
        VerifiedTenant,
    )
    from hookseal.admin.results.base import Page
    from hookseal.admin.results.deliveries import (
        Attempt,
        AttemptRecord,
        DeliveriesByState,
        Delivery,
        DeliveryDetails,
        ReplayedDelivery,
        SkippedDelivery,
    )
    from hookseal.admin.results.endpoints import (
        AddedEndpoint,
        DeletedEndpoint,
        DisabledEndpoint,
        EnabledEndpoint,
        Endpoint,
        EndpointDetails,
        EndpointStats,
        FailedAttempt,
        FailedRow,
        ImportedEndpoints,
        PeriodStats,
        RetriedEndpoint,
        SentExample,
        UpdatedEndpoint,
    )
    from hookseal.admin.results.events import EventDelivery, EventDetails, EventType, StoredEvent
    from hookseal.admin.results.found import Found
    from hookseal.admin.results.keys import (
        Compromise,
        ExposedPlace,
        FailedReplacement,
        InitialisedKeys,
        IntegrityKey,
        MasterKey,
        MasterKeys,
        MovedKey,
        RewrappedKey,
        SealedVersion,
        UnopenedRecord,
    )
    from hookseal.admin.results.pings import Ping, PingAddress, PingAnswer, PingRequest, PingTls, SignedContent
    from hookseal.admin.results.replays import ReplayCount, ReplayJob
    from hookseal.admin.results.restores import AcceptedRestore, RefusedEndpoint, StaleEndpoints
    from hookseal.admin.results.signing_secrets import (
        Canary,
        ClearedCaches,
        FailedEndpoint,
        FailedPurge,
        MigratedSecrets,
        MovedSecrets,
        PastRotation,
        PublicKeys,
        Purge,
        RevealedSecret,
        Rotation,
        RotationSchedule,
        RotationStatus,
        SecretVersion,
        SigningSecrets,
    )
    from hookseal.admin.results.status import (
        FirstAttempts,
        OtherTenants,
        Overview,
        RunningReplay,
        Status,
        TenantBacklog,
        TroubledEndpoint,
        WorkerStatus,
    )
    from hookseal.admin.results.tenants import DeletedTenant, GrantedProducer, Producer, RevokedProducer, Tenant
    from hookseal.admin.results.tokens import AddedToken, ExpiredPortals, PortalAccess, PortalSession, Token
    from hookseal.dispatcher.core.concerns import Concern
    from hookseal.dispatcher.core.endpoint_settings import EndpointSettings
    from hookseal.dispatcher.core.why import Explanation
    from hookseal.dispatcher.store.endpoint_queries import StatsOrder, Trouble
    from hookseal.dispatcher.store.tokens import PORTAL_SCOPES, PORTAL_SECONDS, Scope
    from hookseal.ground.literals import (
        ActionName,
        AlgorithmName,
        AttemptResult,
        ContradictionName,
        DeliveryState,
        EndpointState,
        FinalState,
        Lead,
        LimitName,
        MasterKeyState,
        NextStep,
        OnDeadLetterName,
        OutcomeName,
        ProviderName,
        ReplayState,
        SchemeName,
        ScopeName,
        StaleKindName,
        StatsOrderName,
        TokenState,
        TroubledState,
        TroubleName,
        VerdictName,
        VersionStateName,
        WaitingReason,
    )
    from hookseal.ground.wire import Algorithm, Scheme

__all__ = [
    "PORTAL_SCOPES",
    "PORTAL_SECONDS",
    "AcceptedRestore",
    "ActionName",
    "AddedEndpoint",
    "AddedToken",
    "Admin",
    "Algorithm",
    "AlgorithmName",
    "Attempt",
    "AttemptRecord",
    "AttemptResult",
    "AuditHead",
    "AuditHeads",
    "AuditRow",
    "BrokenRow",
    "Canary",
    "ClearedCaches",
    "Compromise",
    "Concern",
    "ContradictedHead",
    "ContradictionName",
    "DeletedEndpoint",
    "DeletedTenant",
    "DeliveriesByState",
    "Delivery",
    "DeliveryDetails",
    "DeliveryState",
    "DisabledEndpoint",
    "EnabledEndpoint",
    "Endpoint",
    "EndpointDetails",
    "EndpointSettings",
    "EndpointState",
    "EndpointStats",
    "EventDelivery",
    "EventDetails",
    "EventType",
    "ExpiredPortals",
    "Explanation",
    "ExportedRow",
    "ExposedPlace",
    "FailedAttempt",
    "FailedEndpoint",
    "FailedPurge",
    "FailedReplacement",
    "FailedRow",
    "FinalState",
    "FirstAttempts",
    "Found",
    "GrantedProducer",
    "ImportRow",
    "ImportedEndpoints",
    "InitialisedKeys",
    "IntegrityKey",
    "Lead",
    "LimitName",
    "MasterKey",
    "MasterKeyState",
    "MasterKeys",
    "MigratedSecrets",
    "MovedKey",
    "MovedSecrets",
    "NextStep",
    "OnDeadLetterName",
    "OtherTenants",
    "OutcomeName",
    "Overview",
    "Page",
    "PastRotation",
    "PeriodStats",
    "Ping",
    "PingAddress",
    "PingAnswer",
    "PingRequest",
    "PingTls",
    "PortalAccess",
    "PortalSession",
    "Producer",
    "ProviderName",
    "PublicKeys",
    "Purge",
    "RefusedEndpoint",
    "ReplayCount",
    "ReplayJob",
    "ReplayState",
    "ReplayedDelivery",
    "RetriedEndpoint",
    "RevealedSecret",
    "RevokedProducer",
    "RewrappedKey",
    "Rotation",
    "RotationSchedule",
    "RotationStatus",
    "RunningReplay",
    "Scheme",
    "SchemeName",
    "Scope",
    "ScopeName",
    "SealedVersion",
    "SecretVersion",
    "SentExample",
    "SignedContent",
    "SigningSecrets",
    "SkippedDelivery",
    "StaleEndpoint",
    "StaleEndpoints",
    "StaleKindName",
    "StatsOrder",
    "StatsOrderName",
    "Status",
    "StoredEvent",
    "Tenant",
    "TenantBacklog",
    "Token",
    "TokenState",
    "Trouble",
    "TroubleName",
    "TroubledEndpoint",
    "TroubledState",
    "UnopenedRecord",
    "UpdatedEndpoint",
    "VerdictName",
    "VerifiedLog",
    "VerifiedTenant",
    "VersionStateName",
    "WaitingReason",
    "WorkerStatus",
]

_PLACES = {
    "hookseal.admin.admin": "Admin",
    "hookseal.admin.imports": "ImportRow",
    "hookseal.admin.results.audit": (
        "AuditHead AuditHeads AuditRow BrokenRow ContradictedHead ExportedRow StaleEndpoint VerifiedLog VerifiedTenant"
    ),
    "hookseal.admin.results.base": "Page",
    "hookseal.admin.results.deliveries": (
        "Attempt AttemptRecord DeliveriesByState Delivery DeliveryDetails ReplayedDelivery SkippedDelivery"
    ),
    "hookseal.admin.results.endpoints": (
        "AddedEndpoint DeletedEndpoint DisabledEndpoint EnabledEndpoint Endpoint EndpointDetails EndpointStats "
        "FailedAttempt FailedRow ImportedEndpoints PeriodStats RetriedEndpoint SentExample UpdatedEndpoint"
    ),
    "hookseal.admin.results.events": "EventDelivery EventDetails EventType StoredEvent",
    "hookseal.admin.results.found": "Found",
    "hookseal.admin.results.keys": (
        "Compromise ExposedPlace FailedReplacement InitialisedKeys IntegrityKey MasterKey MasterKeys MovedKey "
        "RewrappedKey SealedVersion UnopenedRecord"
    ),
    "hookseal.admin.results.pings": "Ping PingAddress PingAnswer PingRequest PingTls SignedContent",
    "hookseal.admin.results.replays": "ReplayCount ReplayJob",
    "hookseal.admin.results.restores": "AcceptedRestore RefusedEndpoint StaleEndpoints",
    "hookseal.admin.results.signing_secrets": (
        "Canary ClearedCaches FailedEndpoint FailedPurge MigratedSecrets MovedSecrets PastRotation PublicKeys Purge "
        "RevealedSecret Rotation RotationSchedule RotationStatus SecretVersion SigningSecrets"
    ),
    "hookseal.admin.results.status": (
        "FirstAttempts OtherTenants Overview RunningReplay Status TenantBacklog TroubledEndpoint WorkerStatus"
    ),
    "hookseal.admin.results.tenants": "DeletedTenant GrantedProducer Producer RevokedProducer Tenant",
    "hookseal.admin.results.tokens": "AddedToken ExpiredPortals PortalAccess PortalSession Token",
    "hookseal.dispatcher.core.concerns": "Concern",
    "hookseal.dispatcher.core.endpoint_settings": "EndpointSettings",
    "hookseal.dispatcher.core.why": "Explanation",
    "hookseal.dispatcher.store.endpoint_queries": "StatsOrder Trouble",
    "hookseal.dispatcher.store.tokens": "PORTAL_SCOPES PORTAL_SECONDS Scope",
    "hookseal.ground.wire": "Algorithm Scheme",
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker has the names above, and refuses every other one

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _MODULES.get(name, "hookseal.ground.literals")
        return globals().setdefault(name, getattr(import_module(module), name))


def __dir__() -> list[str]:
    """Return what is public, so that completion offers it before it is loaded."""
    return sorted(__all__)
