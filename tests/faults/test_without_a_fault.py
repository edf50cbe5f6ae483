"""The fault suite without a fault, which shows that the suite itself breaks no law."""

from tests.faults.site import Site


async def test_a_run_without_faults_breaks_no_law(own_site: Site) -> None:
    """Without a fault no law is broken, and nothing is sent twice."""
    await own_site.fleet.start_many(2)
    await own_site.publish(200)
    await own_site.wait_until_settled()
    assert [0, 0] == await own_site.fleet.stop_all()
    (await own_site.report()).require(deliveries=400, requests=400, duplicates=0, unknown=0)
