"""The loops that a worker runs beside the one that takes rings, by name."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from hookseal.config.settings import Settings
from hookseal.dispatcher.holds import PostgresHolds
from hookseal.ground.clock import Clock
from hookseal.secrets import schedule
from hookseal.secrets.ref import Provider
from hookseal.worker.holding import Holding
from hookseal.worker.housekeeping import Housekeeping, Rules
from hookseal.worker.listen import Listening
from hookseal.worker.measure import Measuring
from hookseal.worker.metrics import LOOP_LAG
from hookseal.worker.outbox import Lease, Outbox
from hookseal.worker.pulse import Pulse
from hookseal.worker.resources import Resources, listener
from hookseal.worker.sweep import Sweep

Loop = Callable[[], Coroutine[Any, Any, None]]


class Rounds:
    """Sweep, outbox, holding, heartbeat, measuring, pulse, housekeeping, denials, and listening if it is asked for."""

    def __init__(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> None:
        seconds = settings.worker.sweep_seconds
        pool, bell, meter = resources.pool, resources.bell, resources.meter
        sweep = Sweep(resources.ledger, bell, seconds=seconds, clock=clock, meter=meter, log=log)
        lease = Lease(pool, holder=resources.worker_id)
        self._denials = resources.denials
        self._outbox = Outbox(lease, resources.ledger, bell, clock=clock, meter=meter, log=log)
        holding = Holding(
            PostgresHolds(pool),
            lambda: self._outbox.leads,
            held_days=settings.worker.held_days,
            clock=clock,
            meter=meter,
            log=log,
        )
        measuring = Measuring(pool, bell.depth, lambda: self._outbox.leads, seconds=seconds, clock=clock, log=log)
        measuring.told_by(meter)
        pulse = Pulse(clock)
        meter.watch(LOOP_LAG, lambda: pulse.lag_seconds)
        self.loops: Mapping[str, Loop] = {
            "sweep": sweep.run,
            "outbox": self._outbox.run,
            "holding": holding.run,
            "lost_claims": resources.lost_claims.run,
            "findings": resources.findings.run,
            "heartbeat": resources.heartbeat.run,
            "measure": measuring.run,
            "pulse": pulse.run,
        }
        if settings.secrets.provider is not Provider.DEV:  # whose secrets end with this process
            housekeeping = self._housekeeping(settings, resources, clock, log)
            self.loops = {**self.loops, "housekeeping": housekeeping.run, "denials": resources.denials.run}
        if settings.worker.listen:
            listening = Listening(partial(listener, settings), self._outbox.wake, clock=clock, log=log)
            self.loops = {**self.loops, "listen": listening.run}

    def _housekeeping(self, settings: Settings, resources: Resources, clock: Clock, log: Any) -> Housekeeping:
        secrets = settings.secrets
        housekeeping = Housekeeping(
            resources.pool,
            resources.unlocked,
            lambda: self._outbox.leads,
            rules=Rules(
                who=f"worker/{resources.worker_id}",
                overlap_seconds=schedule.overlap_seconds(secrets.rotation_overlap_seconds),
                retention_days=secrets.retired_retention_days,
            ),
            clock=clock,
            log=log,
        )
        housekeeping.told_by(resources.meter)
        return housekeeping

    async def end(self) -> None:
        """Let another worker lead at once, and audit what is counted still. The loops must have ended."""
        await self._outbox.step_down()
        if "denials" in self.loops:
            await self._denials.end()
