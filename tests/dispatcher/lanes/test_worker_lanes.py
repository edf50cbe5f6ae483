"""All lanes of a worker: whose turn it is, what waits, and what is parked in PostgreSQL."""

from collections import Counter
from math import inf

import pytest

from hookseal.dispatcher.core.looks import MOST_PAUSE, WHOLE_TIMES
from hookseal.dispatcher.core.model import Outcome, Pace, Ring, WaitingFor
from hookseal.dispatcher.lanes import crowded
from hookseal.dispatcher.lanes import lane as known_module
from hookseal.dispatcher.lanes.crowded import (
    ASK_AGAIN_SECONDS,
    BEGINNING,
    CALM_SECONDS,
    MOST_EMPTY_ASKED,
    START_OVER_SECONDS,
    Asked,
)
from hookseal.dispatcher.lanes.lane import BREAKER_FAILURES, LOCKED_SECONDS, MOST_LOCKED_IN_A_ROW, Fleet
from hookseal.dispatcher.lanes.round_robin import RoundRobin
from hookseal.dispatcher.lanes.tenants import (
    MANY_UNANSWERED,
    MOST_AFTER_PAUSE,
    MOST_TENANTS,
    MOST_UNANSWERED,
    PAUSE_SECONDS,
    TENANT_SHARE,
    Unanswered,
)
from hookseal.dispatcher.lanes.waiting import HANGS_SECONDS, MOST_BLOCKED
from hookseal.dispatcher.lanes.worker_lanes import (
    FETCHED_WITHIN_SECONDS,
    LONGEST_WAIT_SECONDS,
    LOOK_AHEAD,
    MOST_ASKED,
    MOST_TO_PARK,
    Lanes,
)
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from tests.doubles.claims import CLAIM, TARGET
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("DEL-09")


AFTER_PAUSE_SECONDS = 1.01 * PAUSE_SECONDS


def rings(number: int, *, tenant: str = "acme", endpoint: int = 1, first: int = 0, parked: bool = False) -> list[Ring]:
    """Return the rings of that many deliveries of one endpoint."""
    return [
        Ring(
            tenant_id=TenantId(tenant),
            endpoint_id=EndpointId(f"01900000-0000-7000-8000-{endpoint:012d}"),
            delivery_id=DeliveryId(f"{tenant}-{endpoint}-{first + each}"),
            is_parked=parked,
        )
        for each in range(number)
    ]


def read_settings(lanes: Lanes, *of: Ring, pace: Pace | None = None, now: float = 0.0) -> None:
    """Let the lanes read the settings of these endpoints."""
    target = replace(TARGET, pace=pace or Pace())
    for ring in of:
        lanes.claimed(replace(CLAIM, ring=ring, target=target), now)


def mark_answered(lanes: Lanes, *of: Ring) -> None:
    """Let these endpoints have answered."""
    for ring in of:
        lanes.begin(ring, 0.0)
        lanes.answered(ring, Outcome.DELIVERED, 0.0)


def fill(lanes: Lanes, tenant: str) -> None:
    """Let as many rings of this tenant wait as may, behind requests in flight to 100 of its endpoints."""
    for endpoint in range(100):
        read_settings(lanes, *(crowd := rings(64, tenant=tenant, endpoint=endpoint)))
        mark_answered(lanes, *rings(1, tenant=tenant, endpoint=endpoint, first=64))
        lanes.add(crowd, 0.0)
        while lanes.pick(10_000, 0.0):
            pass


def key(ring: Ring) -> tuple[str, str]:
    return ring.tenant_id, ring.endpoint_id


def test_tenants_and_then_their_endpoints_take_turns() -> None:
    lanes = Lanes(32)
    backlog = rings(30) + rings(30, endpoint=2)
    others = rings(3, tenant="globex") + rings(3, tenant="initech")
    read_settings(lanes, *backlog, *others)
    mark_answered(lanes, *rings(1, first=30), *rings(1, endpoint=2, first=30))
    lanes.add([*backlog, *others], 0.0)

    picked = lanes.pick(100, 0.0, most=12)
    assert {"acme": 6, "globex": 3, "initech": 3} == Counter(each.tenant_id for each in picked)
    assert {3} == set(Counter(each.endpoint_id for each in picked if each.tenant_id == "acme").values())
    assert [0, 1, 2] == [int(each.delivery_id[-1]) for each in picked if each.tenant_id == "globex"], "not in order"


@pytest.mark.parametrize("tenants", [1, 2, 5])
def test_hanging_tenants_leave_slots_for_others(tenants: int) -> None:
    slots, free = 500, 500
    lanes = Lanes(32)
    for tenant in range(tenants):
        for endpoint in range(100):
            waiting = rings(32, tenant=f"t{tenant}", endpoint=endpoint)
            read_settings(lanes, waiting[0])
            lanes.add(waiting, 0.0)
    now = 0.0
    for _ in range(slots // MOST_AFTER_PAUSE):
        free -= len(lanes.pick(free, now := now + AFTER_PAUSE_SECONDS))
    taken = slots - free

    assert TENANT_SHARE * tenants / (TENANT_SHARE * tenants + 1) * slots - tenants <= taken
    assert free >= slots // (TENANT_SHARE * tenants + 1) - tenants
    lanes.add(new := rings(3, tenant="healthy"), now)
    assert new[:1] == lanes.pick(free, now)


def test_a_tenant_with_its_share_does_not_fill_this_worker() -> None:
    """The rings of a tenant that has its share of the slots take no space, and most of them are parked."""
    lanes = Lanes(8)
    for endpoint in range(20):
        read_settings(lanes, *(crowd := rings(8, endpoint=endpoint)))
        mark_answered(lanes, rings(1, endpoint=endpoint, first=8)[0])
        lanes.add(crowd, 0.0)
    picked = lanes.pick(36, 0.0)
    free = 36 - len(picked)
    assert 0 < free < 8
    assert {"acme"} == lanes.at_their_share
    assert free + LOOK_AHEAD == lanes.space(free)
    lanes.add(late := rings(10, endpoint=99), 0.0)
    assert late == [each.ring for each in lanes.take_parked(100)]
    lanes.crowded.learn(key(late[0]))
    assert [] == lanes.wanted(free, 0.0)
    assert [] == lanes.pick(free, 0.0)
    assert {"acme"} == lanes.at_their_share
    lanes.add(new := rings(3, tenant="globex"), 0.0)
    assert new[:1] == lanes.pick(free, 0.0), "its settings are not known yet"
    lanes.left(picked[0].delivery_id, 0.0)
    assert 1 == len(lanes.pick(free + 1, 0.0))


def test_a_turn_begins_few_requests_to_unresponsive_endpoints() -> None:
    """Each such request opens a connection. Endpoints that answered their last request are not limited by this."""
    lanes = Lanes(32)
    silent = [ring for endpoint in range(40) for ring in rings(1, endpoint=endpoint)]
    well = rings(20, tenant="globex")
    read_settings(lanes, *silent, *well)
    mark_answered(lanes, *rings(1, tenant="globex", first=20))
    lanes.add([*silent, *well], 0.0)

    assert {"acme": MOST_UNANSWERED, "globex": MOST_UNANSWERED - 1} == Counter(
        each.tenant_id for each in lanes.pick(100, 0.0)
    )
    for ring in (second := lanes.pick(100, 0.0)):
        lanes.answered(ring, Outcome.TIMEOUT, 1.0)
    assert {"acme": MOST_UNANSWERED, "globex": MOST_UNANSWERED} == Counter(each.tenant_id for each in second)
    lanes.add(rings(1, endpoint=99), 1.0)
    assert {"acme": MOST_UNANSWERED // 2, "globex": MOST_UNANSWERED // 2} == Counter(
        each.tenant_id for each in lanes.pick(100, 1.0)
    ), "the endpoint of globex does not answer any more"


@pytest.fixture
def holes() -> tuple[Lanes, float]:
    """Return lanes in which as many requests hang as make pauses, and the time when the pause begins."""
    lanes, now = Lanes(32), 1.0
    lanes.add([ring for endpoint in range(200) for ring in rings(1, endpoint=endpoint)], now)
    begun = sum(len(lanes.pick(500, now)) for _ in range(MANY_UNANSWERED // MOST_UNANSWERED))
    assert MANY_UNANSWERED == begun
    return lanes, now


def test_hanging_requests_begin_with_pauses(holes: tuple[Lanes, float]) -> None:
    """While many requests hang, few more begin at a time, and the rings that wait take no space from others."""
    lanes, now = holes
    assert [] == lanes.pick(500, now)
    assert now + PAUSE_SECONDS == lanes.next_at(now)
    assert 500 + LOOK_AHEAD == lanes.space(500)
    begun = 0
    for turn in range(1, 200 // MOST_AFTER_PAUSE):
        assert [] == lanes.pick(500, now + (turn - 0.5) * AFTER_PAUSE_SECONDS)
        begun += len(lanes.pick(500, now + turn * AFTER_PAUSE_SECONDS))
        assert turn * MOST_AFTER_PAUSE >= begun
    assert 200 - MANY_UNANSWERED == begun
    assert float("inf") == lanes.next_at(now + 200)


def test_time_outs_bring_the_pauses_back(holes: tuple[Lanes, float]) -> None:
    """A tenant of which many are answered begins more without pauses; each time-out halves what it may."""
    lanes, now = holes
    for endpoint in range(MANY_UNANSWERED):
        lanes.answered(rings(1, endpoint=endpoint)[0], Outcome.DELIVERED, now)
    allowed, begun = MOST_UNANSWERED + MANY_UNANSWERED, list[Ring]()
    while picked := lanes.pick(500, now):
        begun += picked
    assert allowed <= len(begun) <= allowed + MOST_UNANSWERED
    for each in begun[:3]:
        lanes.answered(each, Outcome.CONNECTION, now)
    assert 3 == len(lanes.pick(500, now)), "what fails at once does not hang"
    later = now + AFTER_PAUSE_SECONDS + HANGS_SECONDS
    for each in begun[3:6]:
        lanes.answered(each, Outcome.CONNECTION, later)

    assert MOST_AFTER_PAUSE == len(lanes.pick(500, later))
    assert [] == lanes.pick(500, later)


def test_what_may_begin_is_remembered_of_a_limited_number_of_tenants() -> None:
    """Of too many tenants the one is forgotten that was answered for longest ago: it may begin as few as at first."""
    unanswered = Unanswered()
    for number in range(MOST_TENANTS + 1):
        unanswered.begin(str(number), f"t{number}")
        unanswered.end(str(number), answers=True)
    tenants = ("t0", f"t{MOST_TENANTS}")
    for tenant in tenants:
        for number in range(MOST_UNANSWERED):
            unanswered.begin(f"{tenant}-{number}", tenant)
    assert ["t0"] == [tenant for tenant in tenants if unanswered._has_many(tenant)]


def test_a_pause_delays_no_tenant_without_hanging_requests(holes: tuple[Lanes, float]) -> None:
    """During a pause the first requests to the endpoints of another tenant, its probes and its other requests begin."""
    lanes, now = holes
    new = [ring for endpoint in range(3) for ring in rings(1, tenant="globex", endpoint=endpoint)]
    well, probe = rings(5, tenant="initech"), rings(1, tenant="initech", endpoint=2)
    read_settings(lanes, *well)
    mark_answered(lanes, *rings(1, tenant="initech", first=5))
    lanes.add([*new, *well], now)
    lanes.add_first([*probe, *(kept := rings(1, endpoint=999))], now)

    assert {*new, *well, *probe} == set(lanes.pick(500, now))
    assert now + PAUSE_SECONDS == lanes.next_at(now), "what others begin makes the pause no longer"
    assert kept[0] in lanes.pick(500, now + PAUSE_SECONDS)


def test_a_ring_waits_for_a_pause_in_its_turn(holes: tuple[Lanes, float]) -> None:
    """A ring that comes during or after a pause waits behind those before it, unless its endpoint answers."""
    lanes, now = holes
    lanes.pick(500, now)
    lanes.add(late := rings(1, endpoint=500), now)
    lanes.add(later := rings(1, endpoint=501), after := now + PAUSE_SECONDS)
    mark_answered(lanes, *rings(1, endpoint=502))
    lanes.add(well := rings(1, endpoint=502, first=1), after)
    picked = lanes.pick(500, after)

    assert well[0] in picked
    assert not {*late, *later} & {*picked}
    assert MOST_AFTER_PAUSE + 1 == len(picked)


def test_pauses_end_with_the_requests_that_hang(holes: tuple[Lanes, float]) -> None:
    """Once the requests have ended, no pause begins any more; what waited begins in turns without one."""
    lanes, now = holes
    lanes.add(rings(1, endpoint=500), now)
    for endpoint in range(MANY_UNANSWERED):
        lanes.answered(rings(1, endpoint=endpoint)[0], Outcome.DELIVERED, now)
    over, begun = now + PAUSE_SECONDS, 0
    for _ in range(MANY_UNANSWERED, 200):
        picked = lanes.pick(500, over)
        begun += len(picked)
        for ring in picked:
            lanes.answered(ring, Outcome.DELIVERED, over)

    assert 200 - MANY_UNANSWERED + 1 == begun


def test_few_rings_of_crowded_lanes_wait_for_a_pause(holes: tuple[Lanes, float]) -> None:
    """While many endpoints wait, nothing is fetched for others that do not answer; for those that answer it is."""
    lanes, now = holes
    lanes.pick(500, now)
    lanes.crowded.learn(key(rings(1, endpoint=500)[0]))
    mark_answered(lanes, *(well := rings(1, endpoint=501)))
    lanes.crowded.learn(key(well[0]))
    lanes.crowded.learn(other := key(rings(1, tenant="globex")[0]))

    assert {key(well[0]), other} == {each.key for each in lanes.wanted(500, now)}


def test_what_may_not_wait_here_is_not_fetched() -> None:
    """While rings of a tenant that wait for a pause have no place here, they would be fetched again and again."""
    lanes, hanging = Lanes(30), MANY_UNANSWERED
    lanes.add([ring for endpoint in range(hanging + 40) for ring in rings(1, endpoint=endpoint)], 0.0)
    while lanes.pick(500, 0.0):
        pass
    lanes.crowded.learn(late := key(rings(1, endpoint=500)[0]))
    assert [late] == [each.key for each in lanes.wanted(500, 0.0)]
    for tenant in ("globex", "initech", "hooli", "umbrella"):
        fill(lanes, tenant)

    assert [] == lanes.wanted(500, 0.0)


def test_what_need_not_wait_is_fetched_without_a_place() -> None:
    """While no pause holds requests to endpoints of a tenant back, the next one begins, and needs no place."""
    unanswered = Unanswered()
    for request in range(MANY_UNANSWERED):
        unanswered.begin(str(request), "acme")
    assert not unanswered.has_enough("acme", 0.0, 0)
    unanswered.pause(0.0, after=1)

    assert unanswered.has_enough("acme", 0.0, 0)
    assert not unanswered.has_enough("acme", 0.0, 1)
    assert not unanswered.has_enough("globex", 0.0, 0)


def test_a_worker_that_stops_leaves_what_waits_for_a_pause(holes: tuple[Lanes, float]) -> None:
    lanes, now = holes
    lanes.pick(500, now)

    assert 200 - MANY_UNANSWERED == len(lanes.leave())
    assert float("inf") == lanes.next_at(now)
    assert [] == lanes.pick(500, now + PAUSE_SECONDS)


def test_many_probes_at_once_leave_room_for_others() -> None:
    """Of the probes of many endpoints a turn begins half of what it may begin to endpoints that have not answered."""
    lanes = Lanes(32)
    probes = [ring for each in range(40) for ring in rings(1, endpoint=each)]
    silent = [ring for each in range(40, 60) for ring in rings(1, endpoint=each)]
    read_settings(lanes, *(well := rings(1, tenant="globex")))
    mark_answered(lanes, *rings(1, tenant="globex", first=1))
    lanes.add_first(probes, 0.0)
    lanes.add([*silent, *well], 0.0)
    half = MOST_UNANSWERED // 2

    assert {*probes[:half], *silent[:half], *well} == set(lanes.pick(500, 0.0))
    assert {*probes[half : 2 * half], *silent[half : 2 * half]} == set(lanes.pick(500, 0.0))


def test_a_single_tenant_has_every_slot() -> None:
    lanes = Lanes(1_000)
    read_settings(lanes, *(waiting := rings(500)))
    mark_answered(lanes, *rings(1, first=500))
    lanes.tenants.has_one = True
    lanes.add(waiting, 0.0)
    assert waiting[:100] == lanes.pick(100, 0.0)


def test_a_full_lane_is_parked_and_blocks_no_other() -> None:
    """Behind an endpoint at its limit one more round waits here; the rest is parked, and other endpoints go on."""
    lanes = Lanes(8)
    read_settings(lanes, *(crowd := rings(40)), *(other := rings(1, endpoint=2)))
    lanes.add(crowd, 0.0)
    assert crowd[:8] == lanes.pick(100, 0.0)
    lanes.add(other, 0.0)

    assert other == lanes.pick(100, 0.0)
    assert [(each, WaitingFor.CONCURRENCY) for each in reversed(crowd[16:])] == [
        (each.ring, each.waiting_for) for each in lanes.take_parked(100)
    ]
    assert not lanes.needs_database
    lanes.answered(crowd[0], Outcome.DELIVERED, 1.0)
    assert crowd[8:9] == lanes.pick(100, 1.0)


@pytest.mark.parametrize(
    ("tenants", "held"), [(["acme"], [MOST_BLOCKED]), (["acme", "globex"], [MOST_BLOCKED // 2, MOST_BLOCKED // 4])]
)
def test_many_crowded_lanes_do_not_fill_this_worker(tenants: list[str], held: list[int]) -> None:
    """Rings whose lanes have no room take no space from others. A tenant leaves as many of their places as it has."""
    lanes, found = Lanes(30), list[int]()
    lanes.tenants.has_one = len(tenants) == 1
    for tenant in tenants:
        fill(lanes, tenant)
        found.append(100 * 34 - len(lanes.take_parked(10_000)))

    assert held == found
    assert LOOK_AHEAD + 10 == lanes.space(10)


def test_many_rings_to_park_stop_the_intake() -> None:
    lanes = Lanes(1)
    read_settings(lanes, *(crowd := rings(MOST_TO_PARK + 10)))
    lanes.add(crowd, 0.0)

    assert 0 == lanes.space(500)
    lanes.take_parked(10_000)
    assert 0 < lanes.space(500)


def test_a_ring_waits_and_runs_once() -> None:
    """A second ring of a delivery that waits here, or whose request runs, is left out."""
    lanes = Lanes(32)
    read_settings(lanes, *(twice := rings(2)))
    lanes.add(twice + twice, 0.0)
    assert twice == lanes.pick(100, 0.0)
    lanes.add(twice, 0.0)
    assert [] == lanes.pick(100, 0.0)
    lanes.left(twice[0].delivery_id, 0.0)
    lanes.left(twice[0].delivery_id, 0.0)
    lanes.add(twice, 0.0)
    assert twice[:1] == lanes.pick(100, 0.0)


def test_a_closed_lane_begins_nothing() -> None:
    """Once the breaker opens, its rings are parked, and the opening is reported once; a ring that was refused goes."""
    lanes = Lanes(32)
    read_settings(lanes, *(crowd := rings(BREAKER_FAILURES + 5)))
    lanes.add(crowd, 0.0)
    picked = lanes.pick(100, 0.0) + lanes.pick(100, 0.0, most=BREAKER_FAILURES - MOST_UNANSWERED)
    for each in picked:
        lanes.answered(each, Outcome.CONNECTION, 0.0)

    assert [(key(crowd[0]), Outcome.CONNECTION)] == [(each.key, each.outcome) for each in lanes.take_opened()]
    assert [] == lanes.pick(100, 0.0)
    parked = lanes.take_parked(10)
    assert 5 == len(parked)
    lanes.add_first([parked[0].ring], 0.0)
    assert lanes.ready
    assert [parked[0].ring] == lanes.pick(100, 0.0)
    lanes.reopened(key(crowd[0]), "since", 1.0)
    lanes.add(rings(3, first=100), 1.0)
    assert 0 == len(lanes.pick(100, 1.0)), "the probe runs"
    lanes.answered(parked[0].ring, Outcome.DELIVERED, 1.0)
    assert 2 == len(lanes.pick(100, 1.0))
    lanes.reopened(key(crowd[0]), "since", 2.0)
    assert 0 == lanes._lanes[key(crowd[0])].room(2.0), "each reopening counts once"


def test_a_lane_closed_by_another_worker_is_closed_here() -> None:
    """A claim that is not the probe of its held endpoint closes the lane in this worker, too."""
    lanes = Lanes(32)
    waiting = rings(3)
    lanes.add(waiting, 0.0)
    assert waiting[:1] == lanes.pick(100, 0.0), "an unknown lane begins with one"
    lanes.claimed(replace(CLAIM, ring=waiting[0], is_probe=False), 0.0)
    assert set(waiting[1:]) == {each.ring for each in lanes.take_parked(10)}


@pytest.mark.req("DEL-10")
def test_rings_beyond_the_rate_are_parked() -> None:
    lanes = Lanes(32)
    waiting = rings(5)
    read_settings(lanes, waiting[0], pace=Pace(rate=1))
    lanes.add(waiting, 1.0)
    assert waiting[:1] == lanes.pick(100, 1.0)
    lanes.add(more := rings(1, first=10), 1.0)

    parked = lanes.take_parked(10)
    assert {WaitingFor.RATE} == {each.waiting_for for each in parked if each.ring in more}
    assert {*waiting[1:], *more} == {each.ring for each in parked}


@pytest.mark.req("DEL-10")
def test_the_first_request_counts_for_the_rate() -> None:
    lanes = Lanes(32)
    lanes.add(waiting := rings(9), 1.0)
    [first] = lanes.pick(100, 1.0)
    read_settings(lanes, first, pace=Pace(rate=5), now=1.0)

    assert waiting[1:5] == lanes.pick(100, 1.0)


def test_a_first_request_beyond_the_limit_is_given_back() -> None:
    """A worker that learns with its first claim that it has no share of the limit sends nothing, and keeps nothing."""
    lanes = Lanes(32, lambda: Fleet(rank=1, workers=2))
    lanes.add(some := rings(3, endpoint=2), 0.0)
    [first] = lanes.pick(100, 0.0)
    claim = replace(CLAIM, ring=first, target=replace(TARGET, pace=Pace(concurrency=1)))
    assert 1 == lanes.claimed(claim, 0.0)
    lanes.unclaimed(first, 0.0)
    lanes.add([first], 0.1)

    assert [] == lanes.pick(100, 0.1)
    assert set(some) == {each.ring for each in lanes.take_parked(9)}


def test_a_ring_that_could_not_be_parked_begins_within_its_tenants_share() -> None:
    lanes = Lanes(32)
    read_settings(lanes, *(crowd := rings(9)))
    lanes.add(crowd[:8], 0.0)
    assert crowd[:8] == lanes.pick(9, 0.0)
    lanes.add_first([crowd[0], crowd[8]], 0.0)
    assert [] == lanes.pick(1, 0.0)
    lanes.left(crowd[0].delivery_id, 0.0)
    assert crowd[8:] == lanes.pick(2, 0.0)
    lanes.add_first(rings(1, first=50), 1.0)
    lanes.park_old(1.0)
    assert lanes.ready
    lanes.park_old(1.0 + LONGEST_WAIT_SECONDS)
    assert not lanes.ready


def test_a_ring_that_waited_for_long_is_parked() -> None:
    """A ring that cannot begin for seconds is parked before the sweep takes it for lost."""
    lanes = Lanes(1)
    read_settings(lanes, *(waiting := rings(3)))
    lanes.add(waiting, 0.0)
    assert waiting[:1] == lanes.pick(100, 0.0)
    lanes.park_old(LONGEST_WAIT_SECONDS - 1)
    assert [] == lanes.take_parked(10)
    lanes.park_old(LONGEST_WAIT_SECONDS)
    assert waiting[1:] == [each.ring for each in lanes.take_parked(10)]


def test_a_crowded_lane_asks_for_as_many_as_fit() -> None:
    """A crowded lane asks for as many as it has room for, once several have ended; these are not parked again."""
    lanes = Lanes(8)
    read_settings(lanes, *(crowd := rings(8)))
    lanes.crowded.learn(key(crowd[0]))
    lanes.add(crowd, 0.0)
    assert crowd == lanes.pick(100, 0.0)
    assert [] == lanes.wanted(100, 0.0)
    lanes.answered(crowd[0], Outcome.DELIVERED, 0.0)
    assert lanes.needs_database
    assert [] == lanes.wanted(100, 0.0), "it asks once for several"
    lanes.answered(crowd[1], Outcome.DELIVERED, 0.0)
    asked = lanes.wanted(100, 0.0)
    assert [Asked(key(crowd[0]), 2)] == asked

    more = rings(2, first=50, parked=True)
    lanes.found(asked, more, 0.0)
    assert more == lanes.pick(100, 0.0)
    lanes.unclaimed(more[0], 0.0)
    lanes.add(rings(20, first=70, parked=True), 0.0)
    assert [] == lanes.take_parked(100), "it waits in PostgreSQL already"


def test_a_look_asks_few_deliveries_of_many_crowded_lanes() -> None:
    lanes = Lanes(32)
    of = [rings(1, endpoint=endpoint)[0] for endpoint in range(MOST_ASKED + 20)]
    read_settings(lanes, *of)
    for ring in of:
        lanes.crowded.learn(key(ring))
    first = lanes.wanted(500, 0.0)
    assert [Asked(key(ring), 1) for ring in of[:MOST_ASKED]] == first
    lanes.found(first, [], 0.0)
    assert [Asked(key(ring), 1) for ring in of[MOST_ASKED:]] == lanes.wanted(500, 0.0)


def test_a_look_asks_each_lane_once() -> None:
    lanes = Lanes(32)
    of = [*rings(1, tenant="one"), *rings(1, tenant="other"), *(rings(1, endpoint=each)[0] for each in range(20))]
    for ring in of:
        lanes.crowded.learn(key(ring))
    asked = lanes.wanted(500, 0.0)
    assert sorted(key(ring) for ring in of) == sorted(each.key for each in asked)
    assert [] == lanes.wanted(500, 0.0)
    assert asked == lanes.wanted(500, ASK_AGAIN_SECONDS), "the statement failed: nothing was found"


def test_lanes_that_were_empty_take_turns() -> None:
    """Of many lanes that were empty a look asks some, whenever it comes; one that has more is asked beside them."""
    lanes = Lanes(32)
    of = [rings(1, endpoint=endpoint)[0] for endpoint in range(MOST_EMPTY_ASKED + 100)]
    for ring in of:
        lanes.crowded.learn(key(ring))
    while asked := lanes.wanted(500, 0.0):
        lanes.found(asked, [], 0.0)
    lanes.crowded.expect(key(of[-1]))

    assert [key(of[-1])] == [each.key for each in lanes.wanted(500, 0.05)]
    again = []
    while asked := lanes.wanted(500, 0.1):
        lanes.found(asked, [], 0.1)
        again += [each.key for each in asked]
    assert [key(ring) for ring in of[:MOST_EMPTY_ASKED]] == again
    assert {key(ring) for ring in of[MOST_EMPTY_ASKED:]} <= {each.key for each in lanes.wanted(500, 0.2)}


@pytest.mark.parametrize(("took", "pause"), [(0.1, 0.1 * WHOLE_TIMES), (4.9, MOST_PAUSE), (600.0, MOST_PAUSE)])
def test_a_lane_that_is_slow_to_read_is_read_from_its_oldest_less_often(took: float, pause: float) -> None:
    """It is read on from where the last look ended, also after the end, for 20 times as long as it took, or 10 s."""
    lanes = Lanes(8)
    read_settings(lanes, *(waiting := rings(2, parked=True)))
    lanes.crowded.learn(key(waiting[0]))
    lanes.found(lanes.wanted(100, 0.0), waiting, took)
    again = took + pause

    for number, now in ((1, took + 0.5), (0, took + 1.0), (0, again - 0.1)):
        [asked] = lanes.wanted(100, now)
        assert waiting[-1].delivery_id == asked.after
        lanes.found([asked], rings(number, first=1, parked=True), now)
    assert [BEGINNING] == [each.after for each in lanes.wanted(100, again)]


def test_a_lane_asks_beyond_what_waits_in_this_worker() -> None:
    """The oldest deliveries in PostgreSQL wait in this worker already, so the lane asks for as many more."""
    lanes = Lanes(8)
    read_settings(lanes, *(waiting := rings(3, parked=True)))
    lanes.crowded.learn(key(waiting[0]))
    lanes.add(waiting, 0.0)
    asked = lanes.wanted(100, 0.0)
    assert [Asked(key(waiting[0]), 8)] == asked
    lanes.found(asked, waiting, 0.0)
    assert [] == lanes.wanted(100, 0.0), "it had no more"


def test_a_lane_is_read_on_from_where_the_last_look_ended() -> None:
    """What was fetched is not read again, except once a second, after the end, and after some was dropped here."""
    lanes = Lanes(8)
    read_settings(lanes, *(waiting := rings(8, parked=True)))
    lanes.crowded.learn(lane := key(waiting[0]))
    lanes.found(lanes.wanted(100, 0.0), waiting, 0.0)
    assert waiting == lanes.pick(100, 0.0)
    for ring in waiting:
        lanes.answered(ring, Outcome.DELIVERED, 0.0)
    behind = Asked(lane, 8, after=waiting[-1].delivery_id)
    assert [behind] == lanes.wanted(100, START_OVER_SECONDS / 2)
    assert [Asked(lane, 8)] == lanes.wanted(100, START_OVER_SECONDS), "an older one may wait there since"

    lanes.found([behind], rings(8, first=50, parked=True), 1.0)
    assert 8 == len(lanes.pick(100, 1.0))
    lanes.add(rings(20, first=70, parked=True), 1.0)
    assert Asked(lane, 13) == lanes.crowded.ask(lane, 5, 8, 1.0), "it has no place for all of them"

    lanes.found([behind], rings(8, first=50, parked=True), 1.0)
    lanes.found([behind], rings(7, first=60, parked=True), 1.0)
    assert Asked(lane, 5) == lanes.crowded.ask(lane, 5, 0, 1.0), "it had fewer: the end"

    lanes.crowded.forget(lane)
    lanes.add(rings(20, first=90, parked=True), 1.0)
    assert lane not in lanes.crowded


def test_a_lane_is_not_asked_while_many_of_it_wait_here() -> None:
    lanes = Lanes(200)
    many, few = rings(LOOK_AHEAD // 2 + 1), rings(1, endpoint=2)
    read_settings(lanes, *many, *few)
    lanes.crowded.learn(key(many[0]))
    lanes.crowded.learn(key(few[0]))
    lanes.add(many, 0.0)
    assert [key(few[0])] == [asked.key for asked in lanes.wanted(100, 0.0)]

    lanes.pick(1, 0.0)
    assert {key(many[0]), key(few[0])} == {asked.key for asked in lanes.wanted(100, ASK_AGAIN_SECONDS)}


def test_a_lane_that_stays_empty_becomes_calm() -> None:
    """A lane that was found empty is asked again soon, and is calm when it stays empty, however rarely it is asked."""
    lanes = Lanes(8)
    read_settings(lanes, *(some := rings(1)))
    lanes.crowded.learn(lane := key(some[0]))
    lanes.found(asked := lanes.wanted(100, 0.0), [], 0.0)
    assert ([Asked(lane, 8)], []) == (asked, lanes.wanted(100, 0.0))
    lanes.found(lanes.wanted(100, 1.0), [], 1.0)

    assert ([], [lane]) == (lanes.crowded.calm(CALM_SECONDS - 0.1), lanes.crowded.calm(2 * CALM_SECONDS))
    lanes.crowded.learn_again(lane)
    assert [Asked(lane, 8)] == lanes.wanted(100, 1.0), "it is asked at once"
    lanes.found(asked, [], 1.0)
    lanes.crowded.keep(lane)
    assert [] == lanes.crowded.calm(2 * CALM_SECONDS)
    lanes.crowded.forget(lane)
    lanes.crowded.forget(lane)
    lanes.crowded.keep(lane)
    lanes.found(asked, [], 9.0)
    assert (0, []) == (len(lanes.crowded), lanes.wanted(100, 9.0))


def test_a_lane_with_room_for_all_that_waits_becomes_calm() -> None:
    """A lane with traffic is calm if, for a while, no second has passed without a look that found all that waits."""
    lanes = Lanes(8)
    read_settings(lanes, *(some := rings(8)))
    lanes.crowded.learn(lane := key(some[0]))

    def look(now: float, number: int) -> list[tuple[str, str]]:
        lanes.crowded.found([Asked(key, 8) for key in lanes.crowded.turns(now)], some[:number], now)
        return lanes.crowded.calm(now)

    assert [] == look(0.0, 7)
    assert [] == look(0.6, 8)
    assert [] == look(0.9, 7)
    assert [] == look(1.5, 7)
    assert [lane] == look(CALM_SECONDS, 7)
    assert [] == lanes.crowded.calm(CALM_SECONDS + START_OVER_SECONDS), "there was no look since"
    assert [] == look(3.1, 8)
    assert [] == look(3.2, 7), "for a second more waited than it had room for"
    for since, now in ((3.2, 4.1), (3.2, 5.0)):
        assert ([lane] if now >= since + CALM_SECONDS else []) == look(now, 7)
    assert [lane] == look(5.3, 7)
    lanes.crowded.parked(lane)
    assert [] == look(5.4, 7)
    assert [] == look(7.4, 7), "more than a second passed without a look"


def test_a_lane_without_room_is_not_calm() -> None:
    lanes = Lanes(1)
    read_settings(lanes, *(some := rings(1)))
    lanes.crowded.learn(key(some[0]))
    lanes.found(lanes.wanted(100, 0.0), [], 0.0)
    lanes.begin(some[0], 0.1)
    assert [] == lanes.wanted(100, START_OVER_SECONDS)
    lanes.answered(some[0], Outcome.DELIVERED, CALM_SECONDS)
    lanes.found(lanes.wanted(100, CALM_SECONDS), [], CALM_SECONDS)

    assert [] == lanes.crowded.calm(CALM_SECONDS)


@pytest.mark.req("DEL-17")
def test_an_ordered_lane_with_traffic_becomes_calm() -> None:
    """A lane that rests while its head is sent is calm once nothing more has waited after each head, for a while."""
    lanes = Lanes(8)
    read_settings(lanes, *(some := rings(1)), pace=Pace(ordered=True))
    lane = key(some[0])
    for now in (0.0, 0.7, 1.4, CALM_SECONDS):
        lanes.crowded.rest(lane)
        assert [] == lanes.wanted(100, now)
        lanes.crowded.expect(lane)
        assert [] == lanes.crowded.calm(now), "more of it may wait"
        lanes.found(lanes.wanted(100, now), [], now)

    assert [lane] == lanes.crowded.calm(CALM_SECONDS)


@pytest.mark.parametrize("concurrency", [None, 1])
def test_a_worker_without_a_share_gets_one_when_others_end(concurrency: int | None) -> None:
    """With more workers than an endpoint takes requests, some have no share: until one that had one ends."""
    fleet = Fleet(rank=1, workers=2)
    lanes = Lanes(1, lambda: fleet)
    (ring,) = rings(1, endpoint=2)
    if concurrency:
        read_settings(lanes, ring, pace=Pace(concurrency=concurrency))
    lanes.crowded.learn(key(ring))
    lanes.share_again()
    assert [] == lanes.wanted(100, 0.0)
    assert key(ring) not in lanes.crowded, "another worker looks after it"
    fleet = Fleet(rank=0, workers=1)
    lanes.share_again()
    lanes.crowded.learn(key(ring))

    assert [Asked(key(ring), 1)] == lanes.wanted(100, 1.0)


@pytest.mark.parametrize("concurrency", [None, 1])
def test_a_worker_without_a_share_keeps_no_ring(concurrency: int | None) -> None:
    lanes = Lanes(1, lambda: Fleet(rank=1, workers=2))
    some = rings(3, endpoint=2)
    if concurrency:
        read_settings(lanes, some[0], pace=Pace(concurrency=concurrency))
    lanes.add(some, 0.0)

    assert [] == lanes.pick(100, 0.0)
    assert {ring.delivery_id for ring in some} == {each.ring.delivery_id for each in lanes.take_parked(9)}


@pytest.mark.parametrize("was_known", [True, False])
def test_a_worker_without_a_share_learns_of_a_higher_limit(was_known: bool) -> None:
    """A worker without a share never claims; it gets one when a look reads a higher limit."""
    lanes = Lanes(1, lambda: Fleet(rank=1, workers=2))
    (ring,) = rings(1, endpoint=2)
    if was_known:
        read_settings(lanes, ring, pace=Pace(concurrency=1))
    lanes.crowded.learn(key(ring))
    assert [] == lanes.wanted(100, 0.0)
    lanes.read_pace(key(ring), Pace(concurrency=30), 1.0)
    lanes.crowded.learn(key(ring))

    assert [Asked(key(ring), 15)] == lanes.wanted(100, 1.0)


def test_a_look_during_a_claim_leaves_the_limit_to_the_claim() -> None:
    """If a look reads a lower limit while a claim runs, the claim still gives back what that does not allow."""
    lanes = Lanes(32, lambda: Fleet(rank=1, workers=2))
    lanes.add(rings(3, endpoint=2), 0.0)
    [first] = lanes.pick(100, 0.0)
    lanes.read_pace(key(first), pace := Pace(concurrency=1), 0.0)

    assert 1 == lanes.claimed(replace(CLAIM, ring=first, target=replace(TARGET, pace=pace)), 0.0)


def test_a_stopping_worker_returns_every_waiting_ring() -> None:
    """When the worker stops, every ring goes back, except what waits in PostgreSQL."""
    lanes = Lanes(1)
    read_settings(lanes, *(waiting := rings(9)))
    lanes.add([*waiting, *rings(1, endpoint=2, parked=True)], 0.0)
    lanes.add_first(first := rings(1, first=77), 0.0)

    assert {*waiting, *first} == set(lanes.leave())
    assert [] == lanes.leave()


def test_the_number_of_idle_lanes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of idle lanes is dropped, the oldest first; a lane in trouble is kept."""
    monkeypatch.setattr(known_module, "MOST_LANES", 3)
    lanes = Lanes(8)
    read_settings(lanes, *(bad := rings(2)))
    lanes.add(bad, 0.0)
    lanes.pick(100, 0.0)
    for each in bad:
        lanes.answered(each, Outcome.TIMEOUT, 0.0)
    for endpoint in range(2, 12):
        read_settings(lanes, *rings(1, endpoint=endpoint))

    assert 4 == lanes._lanes[key(bad[0])].room(1.0)
    assert len(lanes._lanes) <= 5


def test_lanes_that_are_used_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many lanes the one is forgotten that was claimed for longest ago, not the one known for longest."""
    monkeypatch.setattr(known_module, "MOST_LANES", 3)
    lanes, used = Lanes(8), rings(1)
    mark_answered(lanes, *used)
    for endpoint in range(2, 12):
        read_settings(lanes, *used)
        read_settings(lanes, *rings(1, endpoint=endpoint))

    assert lanes._lanes[key(used[0])].answers
    assert 3 == len(lanes._lanes)


def test_the_number_of_idle_lanes_with_a_rate_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane of an endpoint with a rate is dropped once its rate is unused; until then its requests count."""
    monkeypatch.setattr(known_module, "MOST_LANES", 3)
    lanes = Lanes(8)
    for endpoint in range(12):
        read_settings(lanes, *rings(1, endpoint=endpoint), pace=Pace(rate=5), now=10.0)
    assert 12 == len(lanes._lanes)
    for endpoint in range(12, 24):
        read_settings(lanes, *rings(1, endpoint=endpoint), pace=Pace(rate=5), now=10.0 + endpoint)

    assert len(lanes._lanes) <= 4


def test_turns_rotate_and_skip_removed_tenants() -> None:
    rotation = RoundRobin()
    for each in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "1")):
        rotation.add(each)
    turns = []
    for _ in range(4):
        turns.append(rotation.first())
        rotation.pass_turn(turns[-1])

    assert ([("a", "1"), ("b", "3"), ("a", "2"), ("b", "3")], 3, 2) == (turns, len(rotation), rotation.tenants)
    rotation.discard(("b", "3"))
    rotation.discard(("b", "3"))
    assert [("a", "1"), ("a", "2")] == sorted(rotation)
    assert ("b", "3") not in rotation


def test_a_ring_begins_once_and_ends_once() -> None:
    lanes = Lanes(2)
    [ring, other] = rings(2)
    read_settings(lanes, ring)
    for _ in range(2):
        lanes.begin(ring, 0.0)
    lanes.claimed(replace(CLAIM, ring=ring, target=None), 0.0)
    lanes.unclaimed(other, 0.0)
    lanes.answered(other, Outcome.DELIVERED, 0.0)
    assert not lanes.left(other.delivery_id, 0.0)
    lanes.add(rings(2, first=2), 0.0)

    assert 1 == len(lanes.pick(10, 0.0))
    assert lanes.left(ring.delivery_id, 0.0)
    assert 1 == len(lanes.pick(10, 0.0))


@pytest.mark.req("DEL-17")
def test_a_ring_behind_the_head_is_parked_for_its_order() -> None:
    """A ring whose delivery is not the head of its line is parked for its order, unless it waits in PostgreSQL."""
    lanes = Lanes(32)
    behind, parked = rings(2), rings(1, first=2, parked=True)
    lanes.behind([*behind, *parked])

    assert lanes.needs_database
    assert [(each, WaitingFor.ORDER) for each in behind] == [
        (each.ring, each.waiting_for) for each in lanes.take_parked(9)
    ]


@pytest.mark.req("DEL-17")
def test_a_lane_with_an_expected_delivery_is_asked_at_once() -> None:
    lanes = Lanes(32)
    (ring,) = rings(1)
    read_settings(lanes, ring, pace=Pace(ordered=True))
    lanes.crowded.expect(key(ring))
    assert [Asked(key(ring), 1)] == lanes.wanted(100, 0.0)
    lanes.found([Asked(key(ring), 1)], [], 0.0)
    assert [] == lanes.wanted(100, 0.0)
    lanes.crowded.expect(key(ring))

    assert [Asked(key(ring), 1)] == lanes.wanted(100, 0.0)


@pytest.mark.req("DEL-17")
def test_the_number_of_expected_lanes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that looks after as many lanes as it may expects nothing of another one: the leader moves that on."""
    monkeypatch.setattr(crowded, "MOST_CROWDED", 0)
    lanes = Lanes(32)
    lanes.crowded.expect(key(rings(1)[0]))

    assert 0 == len(lanes.crowded)


def test_a_little_room_is_used_while_other_requests_hang() -> None:
    """A lane of whose 32 requests 26 hang is asked again after 0.1 s, not when one of them ends."""
    lanes = Lanes(32)
    hanging = rings(26, parked=True)
    read_settings(lanes, hanging[0])
    mark_answered(lanes, hanging[0])
    lanes.crowded.learn(key(hanging[0]))
    lanes.found(lanes.wanted(100, 0.0), hanging, 0.0)
    assert hanging == lanes.pick(100, 0.0)
    assert [] == lanes.wanted(100, 0.0), "it waits a moment, to ask once for more"

    assert [Asked(key(hanging[0]), 6)] == lanes.wanted(100, ASK_AGAIN_SECONDS)


def test_a_locked_endpoint_is_left_alone_for_a_moment() -> None:
    """For a fifth of a second nothing of it begins, and others do; then its rings begin in the same order."""
    lanes, mine, other = Lanes(32), rings(40), rings(2, endpoint=2)
    read_settings(lanes, mine[0], other[0])
    mark_answered(lanes, mine[0], other[0])
    lanes.add(mine, 0.0)
    first = lanes.pick(32, 0.0)
    lanes.found_locked(first, 0.0)
    lanes.add(other, 0.0)
    read_settings(lanes, other[0])

    assert other == lanes.pick(128, LOCKED_SECONDS - 0.01)
    assert LOCKED_SECONDS == lanes.locked.next_at
    assert mine[:32] == lanes.pick(128, LOCKED_SECONDS)
    assert inf == lanes.locked.next_at


def test_an_endpoint_that_stays_locked_is_tried_five_times_a_second() -> None:
    """However many rings it has, and although this worker has not read its settings, it takes no place from others."""
    lanes, tries = Lanes(32), 0
    lanes.add(rings(300), 0.0)
    for hundredth in range(1, 101):
        now = hundredth / 100
        if found := lanes.pick(128, now):
            tries += 1
            lanes.found_locked(found, now)

    assert 5 == tries
    assert 4 + LOOK_AHEAD == lanes.space(4)


def test_rings_of_an_endpoint_that_is_locked_for_long_wait_in_postgresql() -> None:
    """After five seconds none of its rings waits here; what is fetched from its lane is tried as often as before."""
    lanes, mine = Lanes(4), rings(4)
    read_settings(lanes, mine[0])
    mark_answered(lanes, mine[0])
    lanes.add(mine, now := 0.0)
    for _ in range(MOST_LOCKED_IN_A_ROW):
        assert [] == lanes.take_parked(9)
        now += LOCKED_SECONDS
        lanes.read_pace(key(mine[0]), Pace(), now)
        lanes.found_locked(lanes.pick(9, now), now)
    assert {each.delivery_id for each in mine} == {each.ring.delivery_id for each in lanes.take_parked(9)}

    [fetched] = rings(1, parked=True)
    now += LOCKED_SECONDS
    lanes.add([fetched], now)
    lanes.found_locked(lanes.pick(9, now), now)
    assert ([], []) == (lanes.take_parked(9), lanes.pick(9, now + LOCKED_SECONDS))
    read_settings(lanes, mine[0])
    lanes.add(mine, now + LOCKED_SECONDS)
    assert mine == lanes.pick(9, now + LOCKED_SECONDS)


def test_rings_behind_one_that_was_found_locked_do_not_wait_longer() -> None:
    """A ring that is tried again does not keep those behind it here: they wait in PostgreSQL after five seconds."""
    lanes, mine = Lanes(1), rings(3)
    read_settings(lanes, mine[0])
    lanes.add(mine, 0.0)
    lanes.found_locked(lanes.pick(9, 4.0), 4.0)
    lanes.park_old(LONGEST_WAIT_SECONDS)

    assert mine[1:] == [each.ring for each in lanes.take_parked(9)]
    assert mine[:1] == lanes.pick(9, LONGEST_WAIT_SECONDS)
    assert 9 + LOOK_AHEAD == lanes.space(9)


def test_a_probe_of_a_locked_endpoint_waits_as_long() -> None:
    """A ring that goes before others does not begin at an endpoint whose row was found locked."""
    lanes, (ring, probe) = Lanes(32), rings(2)
    lanes.add([ring], 0.0)
    lanes.found_locked(lanes.pick(9, 0.0), 0.0)
    lanes.add_first([probe], 0.0)

    assert [] == lanes.pick(9, LOCKED_SECONDS - 0.01)
    assert [probe] == lanes.pick(9, LOCKED_SECONDS)


def test_no_probe_waits_behind_many_that_may_not_begin() -> None:
    """The second turn begins a probe that waits behind more probes of a tenant with its share than a turn looks at."""
    lanes, crowd = Lanes(1_000), rings(TENANT_SHARE)
    read_settings(lanes, *crowd)
    mark_answered(lanes, *rings(1, first=50))
    lanes.add(crowd, 0.0)
    assert crowd == lanes.pick(9, 0.0)
    lanes.add_first([*rings(MOST_ASKED, first=100), *(probe := rings(1, tenant="globex"))], 0.0)

    assert [] == lanes.pick(1, 0.0)
    assert probe == lanes.pick(1, 0.0)


def test_a_locked_ring_waits_once() -> None:
    """If its delivery waits here already, because it came twice, it waits once."""
    lanes, [ring] = Lanes(32), rings(1)
    lanes.add([ring], 0.0)
    lanes.add_first([ring], 0.0)
    lanes.found_locked(lanes.pick(1, 0.0), 0.0)

    assert [ring] == lanes.leave()


# Which deliveries waited because of their endpoint, and which only for this worker.


def waited(lanes: Lanes, slots: int, now: float) -> list[bool]:
    """Pick, and return for each ring whether its lane had no room for it before."""
    return [lanes.waited(each.delivery_id) for each in lanes.pick(slots, now)]


@pytest.mark.req("OPS-02", part="counted")
def test_only_what_its_lane_had_no_room_for_waited() -> None:
    """With one request allowed the second ring waits for the first one's answer, and the first did not wait."""
    lanes = Lanes(1)
    first, second = rings(2)
    read_settings(lanes, first)
    lanes.add([first, second], 0.0)
    assert [False] == waited(lanes, 10, 0.0)
    lanes.answered(first, Outcome.DELIVERED, 1.0)

    assert [True] == waited(lanes, 10, 1.0)
    lanes.answered(second, Outcome.DELIVERED, 2.0)
    assert not lanes.waited(second.delivery_id), "it is kept although the request has ended"
    lanes.add(rings(1, first=2), 3.0)
    assert [False] == waited(lanes, 10, 3.0), "the wait of an earlier ring"


@pytest.mark.req("OPS-02", part="counted")
def test_what_waits_for_a_slot_of_the_worker_did_not_wait_for_its_lane() -> None:
    """A full worker, or the share of its slots that a tenant has, is what hookseal owes."""
    lanes = Lanes(100)
    read_settings(lanes, *rings(1), *rings(1, tenant="globex"))
    mark_answered(lanes, *rings(1, first=50), *rings(1, tenant="globex", first=50))
    lanes.add(rings(12), 0.0)
    assert [False] * 4 == waited(lanes, 4, 0.0)
    assert [] == waited(lanes, 0, 0.5)
    lanes.add(rings(1, tenant="globex"), 1.0)

    assert [False] * 2 == waited(lanes, 2, 1.0)
    assert [False] == waited(lanes, 1, 2.0)


@pytest.mark.req("OPS-02", part="counted")
def test_an_unread_endpoint_makes_nothing_wait() -> None:
    """Before this worker has read the settings of an endpoint, a second ring waits for the worker, not for its lane."""
    lanes = Lanes(32)
    first, second = rings(2)
    lanes.add([first, second], 0.0)
    assert [False] == waited(lanes, 10, 0.0)
    read_settings(lanes, first, now=0.1)

    assert [False] == waited(lanes, 10, 0.1)


@pytest.mark.req("OPS-02", part="counted")
@pytest.mark.parametrize(
    ("pace", "since_room", "expected"),
    [
        (Pace(concurrency=1), FETCHED_WITHIN_SECONDS / 2, True),
        (Pace(concurrency=1), FETCHED_WITHIN_SECONDS * 2, False),  # the lane had room: this worker had none
        (Pace(ordered=True), FETCHED_WITHIN_SECONDS * 2, True),  # it waited for its turn
    ],
)
def test_what_was_parked_waited_if_its_lane_was_full(pace: Pace, since_room: float, *, expected: bool) -> None:
    """A delivery that is fetched from PostgreSQL waited if its lane had no room lately, or its line kept it."""
    lanes = Lanes(32)
    running, parked = rings(1, first=9), rings(1, parked=True)
    read_settings(lanes, *running, pace=pace)
    lanes.crowded.learn(key(running[0]))
    lanes.add(running, 0.0)
    lanes.pick(10, 0.0)
    assert [] == lanes.wanted(10, 0.0)
    lanes.answered(running[0], Outcome.DELIVERED, 0.0)
    lanes.add(parked, since_room)

    assert [expected] == waited(lanes, 10, since_room)


@pytest.mark.req("OPS-02", part="counted")
def test_what_waited_for_a_breaker_or_a_pause_waited() -> None:
    """After the breaker has closed, and after a pause between requests that hang, deliveries waited."""
    lanes = Lanes(32)
    read_settings(lanes, *(reopened := rings(1, parked=True)))
    lanes.reopened(key(reopened[0]), "t", 5.0)
    lanes.add(reopened, 5.1)
    assert [True] == waited(lanes, 10, 5.1)

    lanes = Lanes(32)
    many = [ring for endpoint in range(MANY_UNANSWERED + 2) for ring in rings(1, endpoint=endpoint)]
    read_settings(lanes, *many)
    lanes.add(many, 0.0)
    begun = [each for _ in range(MANY_UNANSWERED // MOST_UNANSWERED) for each in waited(lanes, 500, 0.0)]
    assert [False] * MANY_UNANSWERED == begun
    assert [] == waited(lanes, 500, PAUSE_SECONDS / 2)
    assert [True, True] == waited(lanes, 500, AFTER_PAUSE_SECONDS)
