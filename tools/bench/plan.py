"""What is measured, and how often: a base case, and cases that change one thing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hookseal.dispatcher.lanes.lane import PEAK_PART
from tools.harness import KB, Endpoints, Servers

HOOKSEAL: Final = "hookseal"  # as installed: no setting of the endpoint or of the worker is given
MEANWHILE: Final = "hookseal, published meanwhile"  # nothing is queued before: 50 tasks publish while it delivers
ONE_PROCESS: Final = "hookseal, one process"
TWO: Final = "hookseal, two processes"
FOUR: Final = "hookseal, four processes"
PROCESSES: Final = {ONE_PROCESS: 1, TWO: 2, FOUR: 4}
OURS: Final = (HOOKSEAL, MEANWHILE, *PROCESSES)
BARE: Final = "bare aiohttp"
CLIENT: Final = "the client of hookseal alone"
WITHOUT_QUEUE: Final = (BARE, CLIENT)
STOCK: Final = "stock arq"
PGQUEUER: Final = "pgqueuer"
QUEUES: Final = ("saq", "taskiq", "procrastinate", PGQUEUER)
# Messages by the HTTP API, and what they are compared with.
BY_API: Final = "message.create, 64 connections"
BY_16_TASKS: Final = "Publisher.publish, 16 tasks"
BY_MANY: Final = "Publisher.publish_many, 100 in one call"
# How events are published at a steady rate, and what happens meanwhile.
RING, SQL, LISTEN, HANGING = "by ring", "by SQL, LISTEN off", "by SQL, LISTEN on", "by ring, 400 hung"

DEFAULT_IN_FLIGHT: Final = 500  # HOOKSEAL_CONCURRENCY, to all endpoints together
PEAK: Final = 256  # HOOKSEAL_ENDPOINT_CONCURRENCY_PEAK: the receiver answers quickly
# Requests in flight of each process of the others: as many as hookseal as installed has to one endpoint. Of 100 and
# 500, most of them are faster with 100, and none is much slower.
IN_FLIGHT: Final = min(PEAK, DEFAULT_IN_FLIGHT // PEAK_PART)
# What holds for the rows of the first table, whose figures are quoted: only runs with the same are one range.
CONDITIONS: Final = f"PostgreSQL with fsync, and at most {IN_FLIGHT} requests in flight to the one endpoint, for all"
# In the order of a round, with hookseal between those to which it is compared.
COMPARED: Final = (BARE, HOOKSEAL, STOCK)
LASTING: Final = (*COMPARED, "procrastinate", PGQUEUER)  # and those that keep their jobs in PostgreSQL

_LEAST: Final = 200
_WAVES: Final = 4
# The rate to assume in a first round, in deliveries a second; later rounds use the measured one. If it were far too
# low, the first round would be over before the start of a worker no longer matters.
_GUESSES: Final = {
    BARE: 12_000.0,
    CLIENT: 12_000.0,
    STOCK: 1_500.0,
    **dict.fromkeys(OURS, 3_000.0),
    "procrastinate": 200.0,
}
_GUESS: Final = 800.0
_GUESS_COLD: Final = 500.0  # each request makes a TLS handshake

ONE: Final = Endpoints()
HUNDRED: Final = Endpoints(tenants=10, each=10)
OF_ONE_TENANT: Final = Endpoints(each=1_000)
PLACES: Final = Endpoints(tenants=100, each=10, secure=True, own=True)

# Without fsync unless it is named: the disks of machines differ too much.
USUAL: Final = Servers()
DURABLE: Final = Servers(durable=True)
OLDEST: Final = Servers(durable=True, oldest=True)
AWAY: Final = Servers(away_ms=1.0)
# The parts of a run in their order, with the servers that each needs. Those of one part in a row share them.
PARTS: Final = {
    "base": DURABLE,
    "oldest": OLDEST,
    "endpoints": USUAL,
    "latency": USUAL,
    "publishing": USUAL,
    "api": USUAL,
    "steady": USUAL,
    "places": USUAL,
    "backlogs": USUAL,
    "away": AWAY,
    "thousands": USUAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The parameters of a scenario for every contender; the defaults are the base case.

    `{postgresql}` in the title is the version. If there is a `per_second`, or a `half_of`, the name of a case whose
    rate of publishing and delivering at once is halved, events are published at that rate while the worker runs, and
    contenders are ways of publishing. Otherwise all is queued before, except for `MEANWHILE`. `is_warm`: each endpoint
    has had a delivery before anything counts. `is_long`: it has one round. `ours` is HOOKSEAL_CONCURRENCY. `waiting` is
    the size of a backlog that the worker finds without a ring; beside it so many deliveries are `retained` that have
    ended, and with a `snapshot` a transaction is open that began before all of them.
    """

    name: str
    title: str
    part: str
    contenders: Sequence[str] = COMPARED
    endpoints: Endpoints = ONE
    processes: int = 1
    body_bytes: int = KB
    concurrency: int = IN_FLIGHT
    ours: int | None = None
    is_warm: bool = False
    is_long: bool = False
    per_second: float = 0.0
    half_of: str = ""
    waiting: int = 0
    retained: int = 0
    snapshot: bool = False

    @property
    def receiver_ms(self) -> int:
        """The milliseconds after which the receiver answers."""
        return self.endpoints.does if isinstance(self.endpoints.does, int) else 0

    @property
    def most_in_flight(self) -> int:
        """Requests that one process of hookseal may have in flight to the endpoints of the case."""
        slots = self.ours or DEFAULT_IN_FLIGHT
        return min(slots, min(PEAK, slots // PEAK_PART) * self.endpoints.number)

    @property
    def is_cold(self) -> bool:
        """Whether the receiver closes each connection, so that every request opens one."""
        return self.endpoints.does == "close"


def _places(part: str, endpoints: Endpoints) -> tuple[Case, Case]:
    """Return two cases of so many places with TLS: with connections that are kept, and with one for each request."""
    contenders, where = (BARE, CLIENT, HOOKSEAL), f"{endpoints.number:,} places of their own, TLS"
    cold = replace(endpoints, does="close")
    return (
        Case(
            name=f"places-{endpoints.number}-kept", title=f"{where}, the receiver keeps connections",
            part=part, contenders=contenders, endpoints=endpoints, is_warm=True, is_long=part == "thousands",
        ),
        Case(
            name=f"places-{endpoints.number}-cold", title=f"{where}, cold: the receiver closes each connection",
            part=part, contenders=contenders, endpoints=cold, is_long=part == "thousands",
        ),
    )  # fmt: skip


def _slow(milliseconds: int, in_flight: int, *contenders: str) -> Case:
    """Return a case in which so many requests that wait for an answer need less than one core."""
    setting = "" if in_flight == DEFAULT_IN_FLIGHT else f" (HOOKSEAL_CONCURRENCY={in_flight})"
    return Case(
        name=f"slow-{milliseconds}",
        title=f"100 endpoints that take {milliseconds} ms, {in_flight} in flight for all{setting}",
        part="endpoints",
        contenders=(BARE, HOOKSEAL, *contenders),
        endpoints=replace(HUNDRED, does=milliseconds),
        concurrency=in_flight,
        ours=in_flight if setting else None,
        is_warm=True,
    )


CASES: Final = (
    Case(
        name="base",
        title="one endpoint, 1 KB, PostgreSQL {postgresql} with fsync",
        part="base",
        contenders=(BARE, CLIENT, HOOKSEAL, STOCK, *QUEUES, MEANWHILE),
    ),
    Case(
        name="base-8kb",
        title="one endpoint, 8 KB, PostgreSQL {postgresql} with fsync",
        part="base",
        contenders=(*LASTING, MEANWHILE),
        body_bytes=8 * KB,
    ),
    Case(
        name="oldest",
        title="one endpoint, 1 KB, PostgreSQL {postgresql} with fsync",
        part="oldest",
        contenders=(*LASTING, MEANWHILE),
    ),
    Case(
        name="oldest-8kb",
        title="one endpoint, 8 KB, PostgreSQL {postgresql} with fsync",
        part="oldest",
        contenders=(*COMPARED, PGQUEUER, MEANWHILE),
        body_bytes=8 * KB,
    ),
    Case(
        name="endpoints-100",
        title="100 endpoints of ten tenants, at one place",
        part="endpoints",
        contenders=(BARE, HOOKSEAL, MEANWHILE),
        endpoints=HUNDRED,
    ),
    Case(
        name="failing",
        title="100 endpoints, 10 of which answer 500: what was delivered",
        part="endpoints",
        contenders=(HOOKSEAL,),
        endpoints=replace(HUNDRED, failing=10),
    ),
    Case(
        name="1000endpoints",
        title="1,000 endpoints of one tenant, at one place",
        part="endpoints",
        contenders=(HOOKSEAL,),
        endpoints=OF_ONE_TENANT,
    ),
    _slow(50, 200, PGQUEUER),
    _slow(300, DEFAULT_IN_FLIGHT),
    Case(
        name="processes",
        title="one, two and four processes, 100 endpoints",
        part="endpoints",
        contenders=tuple(PROCESSES),
        endpoints=HUNDRED,
    ),
    Case(name="latency-20", title="20/s", part="latency", contenders=(RING, SQL, LISTEN, HANGING), per_second=20.0),
    Case(
        name="latency-half",
        title="half of saturation, 100 endpoints",
        part="latency",
        contenders=(RING,),
        endpoints=HUNDRED,
        is_warm=True,
        half_of="endpoints-100",
    ),
    Case(
        name="latency-failing",
        title="the same, 10 of them answer 500",
        part="latency",
        contenders=(RING,),
        endpoints=replace(HUNDRED, failing=10),
        is_warm=True,
        half_of="endpoints-100",
    ),
    Case(
        name="latency-cold",
        title="200/s to 1,000 places, TLS, cold",
        part="latency",
        contenders=(RING,),
        endpoints=replace(PLACES, does="close"),
        is_warm=True,
        per_second=200.0,
    ),
    *_places("places", PLACES),
    Case(
        name="away",
        title="PostgreSQL 2 ms away and back, one endpoint",
        part="away",
        contenders=(HOOKSEAL, PGQUEUER),
    ),
    Case(name="latency-away", title="20/s, PostgreSQL 2 ms away", part="away", contenders=(RING,), per_second=20.0),
    Case(
        name="slow-12000",
        title="12,000 endpoints of one tenant that take 300 ms",
        part="thousands",
        contenders=(HOOKSEAL,),
        endpoints=Endpoints(each=12_000, does=300),
        is_warm=True,
        is_long=True,
    ),
    *_places("thousands", replace(PLACES, each=100)),
)
AT_LEAST: Final = "backlog-1000"  # the backlog beside which the others are measured


def backlogs(size: "Size") -> tuple[Case, ...]:
    """Return the cases of a backlog, all with deliveries for 1,000 endpoints of one tenant."""
    made = [(number, f"{number:,} waiting deliveries", 0, False) for number in size.backlogs]
    made += [(size.backlogs[0], f"the first, and {size.retained:,} retained", size.retained, False)] * bool(
        size.retained
    )
    made += [(size.backlogs[0], "the first, and an old snapshot open", 0, True)] * size.snapshot
    return tuple(
        Case(
            name="snapshot" if snapshot else "retained" if retained else f"backlog-{waiting}",
            title=title,
            part="backlogs",
            contenders=(HOOKSEAL,),
            endpoints=OF_ONE_TENANT,
            waiting=waiting,
            retained=retained,
            snapshot=snapshot,
        )
        for waiting, title, retained, snapshot in made
    )


def for_contender(case: Case, contender: str) -> Case:
    """Return the case as that contender runs it."""
    return replace(case, processes=PROCESSES.get(contender, case.processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a run measures. It ends within `deadline_seconds`; what does not fit is reported."""

    name: str
    parts: Sequence[str]
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
    retained: int
    snapshot: bool
    backlog_seconds: float
    backlog_rounds: int
    idle_seconds: float
    api_endpoints: int  # beside which lists and new endpoints are measured
    api_deliveries: int
    api_times: int
    statements: int  # deliveries for which statements are counted: so many that those of a start do not matter
    statements_at_20: int
    # Cases whose rounds are so many times as long: the one from which rates are claimed, those in which each of many
    # endpoints has a first delivery, which costs more, and those whose first and last requests leave slots empty.
    longer: Mapping[str, int] = field(default_factory=dict)
    # The contenders of a case, where the case has them.
    beside: Sequence[str] = (*OURS, *WITHOUT_QUEUE, STOCK, *QUEUES, RING, SQL, LISTEN, HANGING)
    # The cases that it measures of those with contenders; none: all of them.
    cases: Sequence[str] = ()
    # By which share of the whole time a part must end, so that a slow machine still measures the others.
    ends: Mapping[str, float] = field(default_factory=dict)


FULL: Final = Size(
    name="whole",
    parts=tuple(PARTS),
    deadline_seconds=2_400,
    rounds=3,
    more_rounds=3,
    rounds_of_cases=3,
    round_seconds=2.5,
    most_deliveries=20_000,
    publish_seconds=2.5,
    latency_seconds=10.0,
    latency_rounds=3,
    backlogs=(1_000, 1_000_000),
    retained=2_000_000,
    snapshot=True,
    backlog_seconds=5.0,
    backlog_rounds=4,
    idle_seconds=15.0,
    api_endpoints=10_000,
    api_deliveries=1_000_000,
    api_times=300,
    statements=10_000,
    statements_at_20=200,
    longer={"base": 2, "1000endpoints": 3, "places-1000-cold": 3, "slow-50": 2, "slow-300": 2},
)
QUICK: Final = replace(
    FULL,
    name="quick",
    parts=("base", "endpoints", "latency", "publishing", "api", "steady", "places", "backlogs"),
    cases=("base", "endpoints-100", "latency-20", "places-1000-kept"),
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
    retained=0,
    snapshot=False,
    backlog_seconds=2.0,
    backlog_rounds=1,
    idle_seconds=4.0,
    api_endpoints=1_000,
    api_deliveries=20_000,
    api_times=20,
    statements=1_000,
    statements_at_20=60,
    longer={},
    beside=(BARE, HOOKSEAL, STOCK, MEANWHILE, RING),
    ends={
        "base": 0.22,
        "endpoints": 0.36,
        "latency": 0.42,
        "publishing": 0.52,
        "api": 0.66,
        "steady": 0.84,
        "places": 0.94,
    },
)
# An hour and a half, of which a snapshot is open for the last hour.
LONG: Final = replace(
    FULL,
    name="long",
    parts=("backlogs",),
    deadline_seconds=10_800,
    backlogs=(1_000,),
    retained=10_000_000,
    backlog_rounds=80,
)


def deliveries_for(size: Size, case: Case, contender: str, rates: Mapping[tuple[str, str], float]) -> int:
    """Return the number of deliveries of a round, in hundreds: about as many as its time allows at the latest rate.

    `rates` has the latest rate of each case and contender, in deliveries a second. The first round of a case has the
    rate of the base case, unless it has many endpoints.
    """
    known = rates.get((case.name, contender))
    if known is None and case.endpoints.number == 1:
        known = rates.get(("base", contender))
    times = size.longer.get(case.name, 1)
    # The first deliveries are all in flight at once: only with many more of them is the rate meaningful.
    in_flight = case.most_in_flight if contender in OURS else case.concurrency
    least, most = max(_LEAST, _WAVES * in_flight, case.endpoints.number), size.most_deliveries
    rate = known or (_GUESS_COLD if case.is_cold else _GUESSES.get(contender, _GUESS))
    if case.receiver_ms:
        rate = min(rate, in_flight * 1_000 / case.receiver_ms)
    wanted = rate * size.round_seconds
    return times * max(least, min(most, round(wanted / 100) * 100))
