"""The fault suite without a fault, which shows that the suite itself causes no finding."""

from tests.faults.site import Site


async def test_without_a_fault_the_books_balance(own_site: Site) -> None:
    """Without a fault the books balance, and nothing is sent twice."""
    await own_site.fleet.start_many(2)
    await own_site.publish(200)
    await own_site.settled()
    assert [0, 0] == await own_site.fleet.stop_all()
    (await own_site.balance()).require(deliveries=400, requests=400, duplicates=0, unknown=0)
