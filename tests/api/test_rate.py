"""How many requests a token may send: its rate, a burst, and nothing at the cost of another one."""

import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.api import app
from hookseal.api.rate import RateLimit
from tests.api.conftest import signed_in
from tests.doubles.applications import served
from tests.doubles.clock import FakeClock

HEALTH, LIST = "/api/v1/health", "/api/v1/app/acme/endpoint"


def answered(limit: RateLimit, caller: str, times: int, now: float) -> int:
    """Return how many of so many requests at one time are answered."""
    return sum(limit.wait(caller, now) == 0 for _ in range(times))


def test_a_burst_is_answered_and_then_the_rate() -> None:
    """A rate of eighths is exact."""
    limit = RateLimit(8)
    assert 16 == answered(limit, "a", 100, 50.0)
    assert [0, 4, 8, 16, 16] == [answered(limit, "a", 100, now) for now in (50.0625, 50.5, 51.5, 53.5, 100.0)]


def test_a_caller_learns_when_to_ask_again() -> None:
    """A caller that waits so long is answered; what was refused costs nothing."""
    limit = RateLimit(8)
    answered(limit, "a", 16, 0.0)
    assert {0.125} == {limit.wait("a", 0.0) for _ in range(100)}
    assert [0.0625, 0.0] == [limit.wait("a", now) for now in (0.0625, 0.125)]


def test_one_caller_does_not_cost_another() -> None:
    limit = RateLimit(8)
    assert [16, 16] == [answered(limit, caller, 1_000, 0.0) for caller in ("a", "b")]


def test_a_rate_of_one_a_second_has_a_burst_of_two() -> None:
    limit = RateLimit(1)
    assert [2, 0, 1] == [answered(limit, "a", 9, now) for now in (0.0, 0.9, 1.0)]


def test_memory_is_bounded() -> None:
    """The caller that was answered least recently is forgotten; one that is refused now is not."""
    limit = RateLimit(8, most=3)
    for caller in ("busy", "a", "b"):
        answered(limit, caller, 16, 0.0)
    assert 1 == answered(limit, "busy", 16, 0.125)
    for number in range(2):
        answered(limit, f"new{number}", 1, 0.125)
    assert 3 == len(limit._used_until)
    assert [0, 16] == [answered(limit, caller, 16, 0.125) for caller in ("busy", "a")]


@pytest.mark.req("API-03")
async def test_too_many_requests_are_answered_with_the_time_to_wait(admin: Admin, publisher: Publisher) -> None:
    """For each token, whatever user it names: another token is answered, and a request of nobody never counts."""
    clock = FakeClock()
    portal = await admin.portal.add(tenant_id="acme", actor="test")
    usual = await admin.tokens.add(name="usual", tenant_id="acme", actor="test")
    busy = {"authorization": f"Bearer {portal.token.reveal().decode()}"}
    other = {"authorization": f"Bearer {usual.token.reveal().decode()}"}
    async with served(app(admin, publisher, rate=2, clock=clock)) as url, httpx.AsyncClient(base_url=url) as client:
        assert [200] * 4 == [(await client.get(LIST, headers=busy)).status_code for _ in range(4)]
        refused = await client.get(LIST, headers=busy)
        assert (429, "1", "application/json", "rate_limited", "too many requests: try again in 1 s") == (
            *(refused.status_code, refused.headers["retry-after"], refused.headers["content-type"]),
            *(refused.json()["code"], refused.json()["detail"]),
        )
        assert 429 == (await client.post("/api/v1/app/acme/endpoint", headers=busy, content=b"x" * 9)).status_code
        users = [other | {"hookseal-user": f"u{number}"} for number in range(5)]
        assert [200] * 4 + [429] == [(await client.get(LIST, headers=each)).status_code for each in users]
        assert [401] * 9 == [(await client.get(LIST)).status_code for _ in range(9)]
        assert [204] * 9 == [(await client.get(HEALTH, headers=busy)).status_code for _ in range(9)]
        clock.elapsed += 0.5
        assert [200, 429] == [(await client.get(LIST, headers=busy)).status_code for _ in range(2)]


async def test_actors_of_a_product_are_counted_apart(admin: Admin, publisher: Publisher) -> None:
    limited = app(admin, publisher, who=signed_in, rate=1, clock=FakeClock())
    async with served(limited) as url, httpx.AsyncClient(base_url=url) as client:
        for name in ("acme", "reader"):
            headers = {"authorization": f"Bearer {name}"}
            assert [200, 200, 429] == [(await client.get(LIST, headers=headers)).status_code for _ in range(3)], name
