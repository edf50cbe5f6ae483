"""A benchmark run, and a soak, with simple figures."""

from tools.bench.results import LeftOut, Round, Row, Run
from tools.harness import POSTGRESQL, PRODUCER, REDIS, WORKER
from tools.records import Machine
from tools.soak import Sample, Soak

_DELIVERIES = 1_000
MACHINE = Machine(
    cpu="A Processor",
    cpus=2,
    memory_mb=8_192,
    kernel="6.1",
    python="3.11.7",
    postgresql="18.1",
    redis="Valkey 9.0",
)
LEFT_OUT = (
    LeftOut(scenario="base", contender="saq", reason="its environment could not be made: no such package"),
    LeftOut(scenario="places-1000-kept", contender="stock arq", reason="it did not end in time", is_failure=True),
)


def a_round(
    *, per_second: float, worker_us: float, postgresql_us: float = 0.0, redis_us: float = 0.0, **figures: float
) -> Round:
    """Return a round of a thousand deliveries."""
    us = {WORKER: worker_us, POSTGRESQL: postgresql_us, REDIS: redis_us}
    return Round(
        deliveries=_DELIVERIES,
        seconds=_DELIVERIES / per_second,
        cpu={part: value * _DELIVERIES / 1e6 for part, value in us.items()},
        figures=figures,
    )


ROUNDS = {
    "bare": (a_round(per_second=4_000, worker_us=200),),
    "hookseal": (
        a_round(
            per_second=2_000,
            worker_us=300,
            postgresql_us=100,
            redis_us=20,
            wal_bytes=2_000,
            publish_wal_bytes=1_000,
            kept_bytes=1_500,
        ),
    ),
    "stock": (a_round(per_second=500, worker_us=1_400),),
    "publish": (
        Round(
            deliveries=_DELIVERIES,
            seconds=2.0,
            cpu={PRODUCER: 0.9, POSTGRESQL: 0.4, REDIS: 0.02},
            figures={"p50_ms": 2.0, "p99_ms": 5.0, "wal_bytes": 1_000.0},
        ),
    ),
    "idle, busy": (Round(seconds=10, figures={"worker_cpu_percent": 4.6}),),
}


def a_run() -> Run:
    """Return the run: half as fast as bare aiohttp, four times as fast as stock arq."""
    return Run(
        commit="0123456789abcdef0123456789abcdef01234567",
        is_dirty=False,
        date="2026-01-02 03:04",
        command="make bench",
        is_quick=False,
        seconds=1_140.0,
        machine=MACHINE,
        settings={"HOOKSEAL_ENV": "development", "HOOKSEAL_HEALTH_PORT": "0"},
        bodies="A body is JSON.",
        versions={"bare aiohttp": "3.14.5", "stock arq": "0.28.0"},
        rows=(
            Row(scenario="base", contender="bare aiohttp", rounds=ROUNDS["bare"]),
            Row(scenario="base", contender="hookseal", rounds=ROUNDS["hookseal"]),
            Row(scenario="base", contender="stock arq", rounds=ROUNDS["stock"]),
            Row(scenario="oldest", contender="hookseal", rounds=(a_round(per_second=1_000, worker_us=300),)),
            Row(scenario="1000endpoints", contender="hookseal", rounds=ROUNDS["hookseal"]),
            Row(scenario="publish", contender="Publisher, one at a time", rounds=ROUNDS["publish"]),
        ),
        left_out=LEFT_OUT,
        titles={"base": "one endpoint", "oldest": "an older PostgreSQL", "1000endpoints": "1,000 endpoints"},
        conditions="PostgreSQL with fsync",
    )


def a_sample(
    number: int, *, size_mb: float = 100.0, p99_ms: float = 5.0, claims: int = 10, worker_mb: float = 90.0
) -> Sample:
    """Return the sample of that number, one each ten seconds."""
    return Sample(
        seconds=number * 10.0,
        delivered=number * 1_000,
        removed=max(0, number - 6) * 1_000,
        size_mb=size_mb,
        stored=6_000,
        dead_rows=500,
        vacuums=number // 6,
        late_seconds=1.5,
        claims=claims,
        claim_p50_ms=2.0,
        claim_p99_ms=p99_ms,
        worker_mb=worker_mb,
    )


def a_soak(*samples: Sample) -> Soak:
    """Return a reduced soak with these samples, in which a day lasts a minute."""
    return Soak(
        commit="a" * 40,
        is_dirty=False,
        date="2026-01-02 03:04",
        command="make soak ARGS='--deliveries 30000'",
        keep_seconds=60,
        per_second=100,
        machine=MACHINE,
        samples=samples,
    )
