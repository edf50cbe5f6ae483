"""`hookseal endpoint stats` shows how the attempts of endpoints went, and what is left to do."""

import pytest

from hookseal.dispatcher.store import endpoint_queries
from hookseal.ground.ids import TenantId
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.dispatcher.test_queries import UNKNOWN, counted


@pytest.mark.req("DEL-20")
@pytest.mark.req("DEL-08")
@pytest.mark.req("OPS-04", part="json")
async def test_stats_has_the_documented_fields(begun: Begun) -> None:
    """The object has the documented fields; the text is a table, or a list for one endpoint."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await begun.stored.deliveries()
    counts = {(TenantId("acme"), endpoint): counted(1, 10, 20)}
    await endpoint_queries.add(begun.stored.pool, counts)
    found = (await begun.run("endpoint", "stats", "--tenant", "acme", "--json")).json
    [shape], [item] = documented("endpoint stats")["items"], found["items"]
    assert None is found["next_cursor"]
    assert (shape.keys(), shape["last_hour"].keys()) == (item.keys(), item["last_hour"].keys())
    assert ("healthy", 1, 2, 0.5) == (
        item["state"], item["pending"], item["last_hour"]["attempts"], item["last_day"]["success_rate"],
    )  # fmt: skip

    table = (await begun.run("endpoint", "stats", "--tenant", "acme")).out.splitlines()
    assert [endpoint, "healthy", "1", "0", "50.0%", "20", "50.0%"] == [
        cell for at, cell in enumerate(table[1].split()) if at != 4
    ]
    one = (await begun.run("endpoint", "stats", "--tenant", "acme", "--endpoint", endpoint)).out
    assert "last hour success rate  50.0%\n" in one
    assert "last day p99            20 ms" in one
    assert "no endpoints\n" == (await begun.run("endpoint", "stats", "--tenant", "globex")).out
    assert 3 == (await begun.run("endpoint", "stats", "--tenant", "acme", "--endpoint", UNKNOWN)).code
