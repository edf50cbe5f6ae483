"""`hookseal endpoint stats` shows how the attempts of endpoints went, and what is left to do."""

import pytest

from hookseal.dispatcher.store import endpoint_queries
from hookseal.ground.ids import EndpointId, TenantId
from tests import rows
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
    assert [endpoint, "healthy", "1", "0", "50.0%", "20"] == table[1].split()
    assert "50.0%" == (await begun.run("endpoint", "stats", "--wide")).out.split()[-1]
    one = (await begun.run("endpoint", "stats", "--tenant", "acme", "--endpoint", endpoint)).out
    assert "last hour success rate  50.0%\n" in one
    assert "last day p99            20 ms" in one
    assert "no endpoints\n" == (await begun.run("endpoint", "stats", "--tenant", "globex")).out
    assert 3 == (await begun.run("endpoint", "stats", "--tenant", "acme", "--endpoint", UNKNOWN)).code
    assert 2 == (await begun.run("endpoint", "stats", "--endpoint", endpoint)).code


async def test_the_worst_of_every_tenant_come_first(begun: Begun) -> None:
    """By what the option says, of those in a state if that is given; what is sorted has no next page."""
    pool = begun.stored.pool
    idle, held, late = await rows.endpoint(pool), await rows.endpoint(pool, "globex"), await rows.endpoint(pool)
    await rows.hold(pool, held, tenant="globex")
    for _ in range(2):
        await rows.wait_for(pool, "secret", await rows.delivery(pool, held, tenant="globex"))
    await rows.delivery(pool, late, next_attempt_at=rows.ago(minutes=5))
    await endpoint_queries.add(pool, {(TenantId("acme"), EndpointId(idle)): counted(1, 10, 20)})

    async def stats(*options: str) -> list[str]:
        found = (await begun.run("endpoint", "stats", "--json", *options)).json
        assert found["next_cursor"] is None
        return [each["endpoint_id"] for each in found["items"]]

    assert [late, held, idle] == await stats()
    assert [[held, late, idle], held, late, idle] == [
        await stats("--sort", "pending"),
        *[(await stats("--sort", by))[0] for by in ("waiting", "oldest_due", "p99")],
    ]
    assert [held] == await stats("--sort", "pending", "--limit", "1")
    assert ([held], [late, idle]) == (await stats("--state", "held"), await stats("--tenant", "acme"))
    assert [] == await stats("--state", "held", "--tenant", "acme", "--sort", "p99")
    for wrong in (("--sort", "p99", "--cursor", idle), ("--tenant", "acme", "--endpoint", idle, "--state", "held")):
        assert 2 == (await begun.run("endpoint", "stats", *wrong)).code
