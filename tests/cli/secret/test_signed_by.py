"""`hookseal delivery list --signed-by` and `hookseal secret versions`, on rows as workers write them."""

from datetime import UTC, datetime

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from tests.cli.command import Ended, hookseal
from tests.cli.endpoint.test_add import NOWHERE
from tests.cli.installation import Begun, options_of
from tests.cli.secret.test_secret import rotated

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
NAME = f"webhook-endpoint-{UNKNOWN}"
STARTED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


async def attempted(begun: Begun, ring: Ring, *signed_by: str) -> None:
    """Record the delivery as delivered at its first attempt, signed by these versions."""
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " VALUES ($1, $2::text::uuid, 1, $3, 'delivered', $4, 'w-1')",
        *(ring.tenant_id, ring.delivery_id, STARTED, list(signed_by)),
    )
    await begun.stored.pool.execute(
        "UPDATE hookseal.deliveries SET state = 'delivered', attempts = 1, next_attempt_at = NULL"
        " WHERE id = $1::text::uuid",
        ring.delivery_id,
    )


async def asked(begun: Begun, ref: str, *options: str) -> Ended:
    """List what the version signed, and return how the command ended."""
    return await begun.run("delivery", "list", "--signed-by", ref, *options, "--json")


def ids(ended: Ended) -> list[str]:
    """Return the ids of the one listed page."""
    assert (0, "", None) == (ended.code, ended.err, ended.json["next_cursor"])
    return [item["delivery_id"] for item in ended.json["items"]]


@pytest.mark.req("SEC-23")
async def test_deliveries_are_listed_by_the_version_that_signed(begun: Begun) -> None:
    """Deliveries that a version signed are listed in pages, also with the options that the ref implies."""
    pointer = (await begun.stored.endpoint()).pointer
    one, two = str(pointer.secret_ref), f"{str(pointer.secret_ref)[:-1]}2"
    await rotated(begun, pointer.endpoint_id, overlap=3_600)
    rings = [(await begun.stored.deliveries())[0] for _ in range(3)]
    for ring, refs in zip(rings, ((one,), (two, one), (two,)), strict=True):
        await attempted(begun, ring, *refs)
    first, second, third = (ring.delivery_id for ring in rings)
    assert [second, first] == ids(await asked(begun, one))
    assert [third, second] == ids(await asked(begun, two, *options_of(pointer.endpoint_id), "--state", "delivered"))
    assert [] == ids(await asked(begun, two, "--state", "pending"))
    page = (await asked(begun, two, "--limit", "1")).json
    following = await asked(begun, two, "--limit", "1", "--cursor", page["next_cursor"])
    assert ([third], [second]) == ([item["delivery_id"] for item in page["items"]], ids(following))
    plain = (await begun.run("delivery", "list", "--limit", "1", "--json")).json
    assert page["items"] == plain["items"]


@pytest.mark.req("SEC-23")
async def test_the_text_says_why_a_version_is_needed(begun: Begun) -> None:
    """The text lists what the version signed, or that it signed nothing, and why each version is needed or not."""
    pointer = (await begun.stored.endpoint()).pointer
    one = str(pointer.secret_ref)
    [ring] = await begun.stored.deliveries()
    assert "no deliveries\n" == (await begun.run("delivery", "list", "--signed-by", one)).out
    await attempted(begun, ring, one)
    assert ring.delivery_id in (await begun.run("delivery", "list", "--signed-by", one)).out
    await rotated(begun, pointer.endpoint_id, overlap=3_600)
    of = ("secret", "versions", *options_of(pointer.endpoint_id))
    until = (await begun.run(*of, "--json")).json["items"][0]["signs_until"]
    first, second = (await begun.run(*of)).out.splitlines()[-2:]
    also = f"every new attempt is signed with it too, until its overlap ends ({until})"
    assert f"version 1: {also}; last signed 2026-03-01T12:00:00.250Z" == first
    assert "version 2: every new attempt is signed with it" == second


@pytest.mark.req("SEC-23")
async def test_a_destroyed_version_still_lists_its_deliveries(begun: Begun) -> None:
    """The deliveries that a destroyed version, or one of a deleted endpoint, signed are still listed."""
    kept = (await begun.stored.endpoint()).pointer
    gone = (await begun.stored.endpoint(url="https://gone.example/")).pointer
    rings = sorted(await begun.stored.deliveries(), key=lambda ring: ring.endpoint_id != kept.endpoint_id)
    for ring, pointer in zip(rings, (kept, gone), strict=True):
        await attempted(begun, ring, str(pointer.secret_ref))
    never_used = (await begun.stored.endpoint(url="https://unused.example/")).pointer
    await rotated(begun, kept.endpoint_id, overlap=0)
    async with begun.stored.pool.acquire() as connection:
        for pointer in (gone, never_used):
            await delete_endpoint(begun.stored.operator(connection), TenantId("acme"), pointer.endpoint_id)
    await begun.stored.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE state = 'retired'"
    )

    assert [rings[0].delivery_id] == ids(await asked(begun, str(kept.secret_ref)))
    assert [rings[1].delivery_id] == ids(await asked(begun, str(gone.secret_ref)))
    assert [] == ids(await asked(begun, str(never_used.secret_ref)))
    for pointer, attempts in ((kept, 1), (gone, 1), (never_used, 0)):
        items = (await begun.run("secret", "versions", *options_of(pointer.endpoint_id), "--json")).json["items"]
        shape = {"state": "destroyed", "signs": False, "attempts": attempts, "needed": False}
        assert shape == {name: items[0][name] for name in shape}
        assert "its material was destroyed; what it signed stays on record" == items[0]["reason"]


@pytest.mark.req("SEC-23")
@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-04", part="errors")
async def test_an_absent_version_is_not_found(begun: Begun) -> None:
    """An absent version, and one of another tenant, is not found, always with the same answer."""
    ref = str((await begun.stored.endpoint()).pointer.secret_ref)
    provider, tenant, name, _ = ref.split(":")
    others = f"{provider}:globex:{name}:1"
    assert [] == ids(await asked(begun, ref))
    found = [
        await asked(begun, wrong)
        for wrong in (f"{ref[:-1]}2", f"aws:{tenant}:{name}:1", f"{provider}:{tenant}:{NAME}:1", others)
    ]
    assert {(3, "signed_by")} == {(ended.code, ended.json["error"]["field"]) for ended in found}
    assert 1 == len({ended.out for ended in found})


@pytest.mark.req("SEC-23")
@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("ref", "options"),
    [
        ("7", ()),
        (f"db:acme:{NAME}:07", ()),
        (f"db:_system:{NAME}:1", ()),
        (f"db:acme:endpoint-headers-{UNKNOWN}:1", ()),
        (f"db:acme:{NAME}:1", ("--tenant", "globex")),
        (f"db:acme:{NAME}:1", ("--endpoint", f"{UNKNOWN[:-1]}5")),
    ],
)
async def test_a_malformed_or_contradicting_ref_is_refused(ref: str, options: tuple[str, ...]) -> None:
    """A malformed ref, or one that contradicts `--tenant` or `--endpoint`, exits 2 before a database is contacted."""
    ended = await hookseal("delivery", "list", "--signed-by", ref, *options, "--json", **NOWHERE)
    assert (2, "signed_by") == (ended.code, ended.json["error"]["field"])
