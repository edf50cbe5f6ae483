"""The background loops of a worker: all except the one that takes rings."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from hookseal.config.settings import Settings
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.history import PostgresHistory
from hookseal.ground.clock import Clock
from hookseal.operations.operator import Operator
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint import schedule
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.holding import Holding
from hookseal.worker.maintenance import Disabling, HealthReports, Housekeeping, HousekeepingRules, Retention, Statistics
from hookseal.worker.metrics.database import Measuring
from hookseal.worker.metrics.database import Rules as Measured
from hookseal.worker.metrics.definitions import LOOP_LAG
from hookseal.worker.outbox import Lease, Listening, Outbox, UnrungRings
from hookseal.worker.periodic import Passes, Pulse
from hookseal.worker.recorder import KeptLeases
from hookseal.worker.replaying import Replaying
from hookseal.worker.resources import Resources, listener
from hookseal.worker.sweep import Sweep

Loop = Callable[[], Coroutine[Any, Any, None]]


class BackgroundLoops:
    """Makes the background loops of a worker; `loops` has them by name."""

    def __init__(
        self, settings: Settings, resources: Resources, clock: Clock, log: Any, *, turns: BacklogTurns
    ) -> None:
        pool, bell, ledger, meter = resources.pool, resources.bell, resources.ledger, resources.meter
        self._denials = resources.denials
        self._outbox = Outbox(
            Lease(pool, holder=resources.worker_id),
            UnrungRings(ledger, bell, clock=clock, turns=turns),
            bell,
            clock=clock,
            meter=meter,
            log=log,
        )
        sweep = Sweep(
            ledger,
            bell,
            seconds=settings.worker.sweep_seconds,
            clock=clock,
            turns=turns,
            meter=meter,
            log=log,
            may_end=lambda: resources.heartbeat.believes_others,
            failed=resources.heartbeat.doubt_others,
        )
        holding = Holding(
            PostgresHeldEndpoints(pool),
            self._outbox,
            held_days=settings.worker.held_days,
            clock=clock,
            meter=meter,
            log=log,
        )
        kept_leases = KeptLeases(
            resources.circuit,
            ledger.prolong_leases,
            lease_seconds=settings.worker.lease_seconds,
            clock=clock,
            log=log,
            announce=resources.heartbeat.beat,
        )
        self._statistics = Statistics(pool, resources.counts, lambda: self._outbox.leads, clock=clock, log=log)
        pulse = Pulse(clock)
        meter.watch(LOOP_LAG, lambda: pulse.lag_seconds)
        # Without one of these some deliveries are never sent; the other loops only look after the installation.
        self.needed: Sequence[Passes] = (
            sweep.passes,
            self._outbox.passes,
            holding.passes,
            resources.heartbeat.passes,
        )
        periodic = [
            sweep.loop,
            self._outbox.loop,
            holding.loop,
            HealthReports(pool, resources.failing, clock=clock, log=log).loop,
            self._disabling(settings, resources, clock, log).loop,
            self._retention(settings, resources, clock, log).loop,
            resources.lost_claims.loop,
            kept_leases.loop,
            resources.stale.loop,
            resources.heartbeat.loop,
            self._measuring(settings, resources, clock, log).loop,
            self._statistics.loop,
        ]
        if settings.secrets.provider is not Provider.DEV:  # its secrets exist in this process only
            periodic += [
                self._housekeeping(settings, resources, clock, log).loop,
                self._denials.loop,
                self._replaying(resources, clock, log).loop,
            ]
        if settings.worker.listen:
            periodic.append(Listening(partial(listener, settings), self._outbox.wake, clock=clock, log=log).loop)
        self.loops: Mapping[str, Loop] = {"pulse": pulse.run, **{loop.name: loop.run for loop in periodic}}

    def _disabling(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> Disabling:
        return Disabling(
            resources.pool,
            resources.unlocked,
            lambda: self._outbox.leads,
            who=f"worker/{resources.worker_id}",
            after_seconds=settings.worker.disable_after_seconds,
            clock=clock,
            meter=resources.meter,
            log=log,
        )

    def _measuring(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> Measuring:
        measuring = Measuring(
            resources.pool,
            resources.bell.depth,
            lambda: self._outbox.leads,
            rules=Measured(
                seconds=settings.worker.sweep_seconds,
                retention_days=settings.worker.retention_days,
                tenants=settings.worker.metrics_tenants,
            ),
            clock=clock,
            log=log,
        )
        measuring.report_to(resources.meter)
        return measuring

    def _retention(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> Retention:
        return Retention(
            PostgresHistory(resources.pool),
            lambda: self._outbox.leads,
            days=settings.worker.retention_days,
            clock=clock,
            meter=resources.meter,
            log=log,
        )

    def _housekeeping(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> Housekeeping:
        secrets = settings.secrets
        housekeeping = Housekeeping(
            resources.pool,
            resources.unlocked,
            lambda: self._outbox.leads,
            rules=HousekeepingRules(
                who=f"worker/{resources.worker_id}",
                overlap_seconds=schedule.overlap_seconds(secrets.rotation_overlap_seconds),
                retention_days=secrets.retired_retention_days,
            ),
            clock=clock,
            log=log,
        )
        housekeeping.report_to(resources.meter)
        return housekeeping

    def _replaying(self, resources: Resources, clock: Clock, log: Any) -> Replaying:
        who = f"worker/{resources.worker_id}"
        return Replaying(
            resources.pool,
            lambda connection: Operator(connection=connection, unlocked=resources.unlocked, who=who),
            self._outbox,
            clock=clock,
            meter=resources.meter,
            log=log,
        )

    async def end(self) -> None:
        """Give up the lead, write what is still counted, and audit refusals. The loops must have ended."""
        await self._outbox.step_down()
        await self._statistics.end()
        if "denials" in self.loops:
            await self._denials.end()
