"""The cost of a period: the CPU of each part, the WAL of PostgreSQL and the commands of Redis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import asyncpg

from tools.bench.cpu import tree_seconds
from tools.bench.results import POSTGRESQL, RECEIVER, REDIS, WORKER
from tools.bench.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one moment."""

    cpu: dict[str, float]
    wal_bytes: int
    redis_commands: int

    def until(self, later: "Reading") -> tuple[dict[str, float], dict[str, float]]:
        """Return the differences between the two readings: CPU seconds of each part, and the other counts."""
        cpu = {part: later.cpu[part] - seconds for part, seconds in self.cpu.items()}
        counts = {
            "wal_bytes": float(later.wal_bytes - self.wal_bytes),
            "redis_commands": float(later.redis_commands - self.redis_commands),
        }
        return cpu, counts


class Meter:
    """Reads the counters for some workers. The benchmark's own connection to PostgreSQL is not counted."""

    def __init__(self, site: Site, observer: "asyncpg.Connection[asyncpg.Record]", workers: Sequence[int] = ()) -> None:
        self._site = site
        self._observer = observer
        self._workers = list(workers)
        self._at_ready: dict[str, float] = {}
        self._early = 0

    async def ready(self, worker: int) -> None:
        """Count that worker from now on, and the servers from the first worker on, without the cost of its start."""
        self._workers.append(worker)
        now = self.cpu()
        own = tree_seconds([worker])
        self._at_ready = {**now, **self._at_ready, WORKER: self._at_ready.get(WORKER, 0.0) + own}

    async def parent_ready(self, worker: int) -> None:
        """Do the same for a parent, which reports once all of its processes are ready: some have delivered by then."""
        await self.ready(worker)
        self._early = (await self._site.receiver.counted()).requests

    def since_ready(self, before: Reading) -> Reading:
        """Return the reading with the CPU since the workers became ready."""
        return replace(before, cpu=self._at_ready)

    def for_all(self, cpu: dict[str, float], deliveries: int) -> dict[str, float]:
        """Return the CPU of that many deliveries, extrapolated from those since the first worker was ready."""
        share = deliveries / max(1, deliveries - self._early)
        return {part: seconds * share for part, seconds in cpu.items()}

    async def read(self) -> Reading:
        """Return the current values of all counters."""
        wal_bytes = await self._observer.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        redis_commands = await self._site.redis_commands()
        return Reading(
            cpu=self.cpu(),
            wal_bytes=int(wal_bytes),
            redis_commands=redis_commands,
        )

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        return {
            WORKER: tree_seconds(self._workers),
            POSTGRESQL: tree_seconds([self._site.postgresql_pid], without=[self._observer.get_server_pid()]),
            REDIS: tree_seconds([self._site.redis_pid]),
            RECEIVER: tree_seconds([self._site.receiver.pid]),
        }
