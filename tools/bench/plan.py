"""What is measured, and how often: a base case, and cases that change one thing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hookseal.dispatcher.lanes.lane import PEAK_PART
from tools.harness import LIMIT

HOOKSEAL: Final = "hookseal"  # as installed: no setting of the endpoint or of the worker is given
WIDE: Final = f"hookseal, --concurrency {LIMIT}"  # of its endpoint
ONE_PROCESS: Final = f"{WIDE}, one process"  # beside two, in the same rounds
AS_THE_OTHERS: Final = f"{WIDE}, HOOKSEAL_CONCURRENCY=100"
OURS: Final = (HOOKSEAL, WIDE, ONE_PROCESS, AS_THE_OTHERS)
BARE: Final = "bare aiohttp"
STOCK: Final = "stock arq"
QUEUES: Final = ("saq", "taskiq", "procrastinate", "pgqueuer")
TRANSPORT: Final = ("transport, kept", "transport, anew")
DEFAULT_IN_FLIGHT: Final = 500  # HOOKSEAL_CONCURRENCY, to all endpoints together
PEAK: Final = 256  # HOOKSEAL_ENDPOINT_CONCURRENCY_PEAK: the receiver answers quickly
# In the order of a round, with hookseal between those to which it is compared.
COMPARED: Final = (BARE, HOOKSEAL, WIDE, STOCK)
ALL: Final = (*COMPARED, *QUEUES)
BASE: Final = (*ALL, AS_THE_OTHERS)

_LEAST: Final = 200
_WAVES: Final = 4
# The rate to assume in a first round, in deliveries a second; later rounds use the measured one. If it were far too
# low, the first round would be over before the start of a worker no longer matters.
_GUESSES: Final = {
    BARE: 12_000.0,
    STOCK: 1_500.0,
    HOOKSEAL: 3_000.0,
    WIDE: 4_000.0,
    AS_THE_OTHERS: 4_000.0,
    "procrastinate": 200.0,
}
_GUESS: Final = 800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The parameters of a scenario for every contender; the defaults are the base case."""

    name: str
    title: str
    contenders: Sequence[str] = COMPARED
    receiver_ms: int = 0
    secure: bool = False
    processes: int = 1
    body_bytes: int = 1_024
    endpoints: int = 1
    # Requests in flight, in each process. Of 100 and 500, most of the others are faster with 100, and none is much
    # slower. hookseal has its defaults, unless HOOKSEAL_CONCURRENCY or the limit of an endpoint is set here.
    concurrency: int = 100
    ours: int | None = None
    limit: int | None = None

    @property
    def most_in_flight(self) -> int:
        """Requests that one process of hookseal may have in flight to the endpoints of the case."""
        slots = self.ours or DEFAULT_IN_FLIGHT
        return min(slots, (self.limit or min(PEAK, slots // PEAK_PART)) * self.endpoints)


CASES: Final = (
    Case(name="base", title="base: answers at once, HTTP kept, one process, 1 KB, one endpoint", contenders=BASE),
    Case(name="500", title="500 in flight for all", concurrency=500, contenders=(BARE, WIDE, STOCK)),
    Case(
        name="50ms",
        title="the receiver takes 50 ms, HOOKSEAL_CONCURRENCY=200, and 200 in flight for the others",
        receiver_ms=50,
        concurrency=200,
        ours=200,
        contenders=ALL,
    ),
    Case(name="tls", title="TLS, kept", secure=True, contenders=(*COMPARED, *TRANSPORT)),
    Case(name="two", title="two processes", processes=2, contenders=(BARE, ONE_PROCESS, WIDE, STOCK)),
    Case(name="32kb", title="32 KB bodies", body_bytes=32_768),
    Case(name="1000endpoints", title="1,000 endpoints", endpoints=1_000, contenders=(HOOKSEAL,)),
)
DURABLE: Final = Case(name="durable", title="PostgreSQL and Redis with fsync", contenders=(HOOKSEAL,))


def for_contender(case: Case, contender: str) -> Case:
    """Return the case as that contender runs it."""
    if contender not in OURS or contender == HOOKSEAL:
        return case
    return replace(
        case,
        limit=LIMIT,
        processes=1 if contender == ONE_PROCESS else case.processes,
        ours=case.concurrency if contender == AS_THE_OTHERS else case.ours,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a run measures. It ends within `deadline_seconds`; what does not fit is reported."""

    name: str
    deadline_seconds: float
    rounds: int
    # More rounds of the base case, with only the contenders whose ratios are headlines: a machine whose speed changes
    # from minute to minute decides a ratio of few rounds.
    more_rounds: int
    rounds_of_cases: int
    round_seconds: float
    most_deliveries: int
    publish_seconds: float
    latency_seconds: float
    latency_rounds: int
    backlogs: tuple[int, ...]
    backlog_seconds: float
    backlog_rounds: int
    idle_seconds: float
    statements: int  # deliveries for which statements are counted: so many that those of a start do not matter
    statements_at_20: int
    # Cases whose rounds are so many times as long: the one from which rates are claimed, and the one in which each of
    # many endpoints has a first delivery, which costs more.
    longer: Mapping[str, int] = field(default_factory=dict)
    # The contenders of the other cases, where the case has them.
    beside: Sequence[str] = (*ALL, ONE_PROCESS, *TRANSPORT)
    crowded: int = 3  # ways of publishing at 500/s
    # By which share of the whole time a part must end, so that a slow machine still measures the others.
    ends: Mapping[str, float] = field(default_factory=dict)


FULL: Final = Size(
    name="whole",
    deadline_seconds=1_800,
    rounds=3,
    more_rounds=6,
    rounds_of_cases=3,
    round_seconds=2.5,
    most_deliveries=20_000,
    publish_seconds=2.5,
    latency_seconds=10.0,
    latency_rounds=3,
    backlogs=(1_000, 100_000, 1_000_000),
    backlog_seconds=5.0,
    backlog_rounds=5,
    idle_seconds=15.0,
    statements=10_000,
    statements_at_20=200,
    longer={"base": 2, "1000endpoints": 3},
)
QUICK: Final = replace(
    FULL,
    name="quick",
    deadline_seconds=112,
    rounds=1,
    more_rounds=0,
    rounds_of_cases=1,
    round_seconds=0.8,
    most_deliveries=4_000,
    publish_seconds=0.7,
    latency_seconds=2.0,
    latency_rounds=1,
    backlogs=(1_000, 100_000),
    backlog_seconds=2.0,
    backlog_rounds=1,
    idle_seconds=4.0,
    statements=1_000,
    statements_at_20=60,
    longer={},
    beside=(BARE, ONE_PROCESS, HOOKSEAL, WIDE, STOCK),
    crowded=1,
    ends={"base": 0.3, "cases": 0.55, "publishing": 0.62, "latency": 0.73, "steady": 0.87, "backlogs": 0.95},
)


def deliveries_for(size: Size, case: Case, contender: str, rates: Mapping[tuple[str, str], float]) -> int:
    """Return the number of deliveries of a round, in hundreds: about as many as its time allows at the latest rate.

    `rates` has the latest rate of each case and contender, in deliveries a second. The first round of a case has the
    rate of the base case, unless it has many endpoints, which take twice as long.
    """
    known = rates.get((case.name, contender))
    if known is None and case.endpoints == 1:
        known = rates.get(("base", contender))
    times = size.longer.get(case.name, 1)
    # The first deliveries are all in flight at once: only with many more of them is the rate meaningful.
    in_flight = case.most_in_flight if contender in OURS else case.concurrency
    least, most = max(_LEAST, _WAVES * in_flight, case.endpoints), size.most_deliveries
    rate = known or _GUESSES.get(contender, _GUESS)
    if case.receiver_ms:
        rate = min(rate, in_flight * 1_000 / case.receiver_ms)
    wanted = rate * size.round_seconds
    return times * max(least, min(most, round(wanted / 100) * 100))
