"""Makes the status of the installation of what was read, with what a person must do."""

from collections.abc import Mapping
from typing import Any

from hookseal.admin.results.base import of_row
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
from hookseal.dispatcher.core.concerns import (
    OBJECTIVE_SECONDS,
    InstallationFacts,
    concerns,
    meets_objective,
    worth_a_look,
)
from hookseal.secrets.core.key_rules import KeyState


def status_of(read: Mapping[str, Any]) -> Status:
    """Return the status of the installation, with what a person must do."""
    overview, replays, first = of_row(Overview, read["overview"]), read["replays"], read["first_attempts"]
    workers = tuple(of_row(WorkerStatus, each) for each in read["workers"])
    facts = InstallationFacts(
        endpoints=overview.endpoints,
        pending=overview.pending,
        oldest_due_seconds=overview.oldest_due_seconds,
        oldest_waiting_seconds=read["oldest_waiting_seconds"],
        limits=[each.limited_by for each in workers if not each.drains],
        draining=sum(each.drains for each in workers),
        overstaying=sum(each.overstays for each in workers),
        cannot_record=sum(each.cannot_record and not each.drains for each in workers),
        leaderless_seconds=read["leaderless_seconds"],
        secrets_refused=read["secrets_refused"],
        stopped_endpoints=overview.stopped_endpoints,
        idle_replay_seconds=replays[0]["idle_seconds"] if replays else None,
        active_keys=overview.master_keys.get(KeyState.ACTIVE, 0) if overview.master_keys else None,
        dead_letters=overview.dead_letters,
        failed=overview.failed,
        most=overview.most,
    )
    return of_row(
        Status,
        read,
        must_act=concerns(facts),
        worth_a_look=worth_a_look(facts),
        overview=overview,
        tenants=tuple(of_row(TenantBacklog, each) for each in read["backlog"]["tenants"]),
        other_tenants=of_row(OtherTenants, read["backlog"]["others"]),
        all_tenants=read["backlog"]["complete"],
        endpoints=tuple(of_row(TroubledEndpoint, each) for each in read["endpoints"]),
        workers=workers,
        first_attempts=of_row(
            FirstAttempts,
            first,
            oldest_due_seconds=overview.oldest_due_seconds,
            objective_seconds=OBJECTIVE_SECONDS,
            meets_objective=meets_objective(first["p95_seconds"], overview.oldest_due_seconds),
        ),
        replays=tuple(of_row(RunningReplay, each) for each in replays),
    )
