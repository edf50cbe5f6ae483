"""`hookseal secret` lists the versions of a secret without the secret itself, and clears the caches of workers."""

from datetime import UTC, datetime

import pytest

from tests import rows
from tests.cli.installation import Begun, options_of
from tests.doubles.logbook import audited

STARTED = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"


async def versions(begun: Begun, endpoint: str) -> list[tuple[str, str, bool]]:
    """Return version, state and whether it signs, for each version, oldest first."""
    items = (await begun.run("secret", "versions", *options_of(endpoint), "--json")).json["items"]
    return [(item["ref"].rpartition(":")[2], item["state"], item["signs"]) for item in items]


@pytest.mark.req("OPS-04", part="json")
async def test_every_version_is_listed(begun: Begun) -> None:
    """Every version is listed with its state, its use and whether it is needed, and says why."""
    pointer = (await begun.stored.endpoint()).pointer
    endpoint = pointer.endpoint_id
    ended = await begun.run("secret", "versions", *options_of(endpoint), "--json")
    (item,) = ended.json["items"]
    assert item["created_at"] == item["changed_at"]
    shape = {
        "ref": pointer.secret_ref,
        "state": "active",
        "scheme": "standard",
        "signs": True,
        "signs_until": None,
        "claims_in_flight": 0,
        "attempts": 0,
        "last_signed_at": None,
        "needed": True,
        "reason": "every new attempt is signed with it",
    }
    assert shape == {name: item[name] for name in shape}
    assert {*shape, "created_at", "changed_at"} == item.keys()
    assert (0, None) == (ended.code, ended.json["next_cursor"])


@pytest.mark.req("SEC-23")
async def test_the_text_is_a_table(begun: Begun) -> None:
    """The text is a table; an endpoint of an older system without a sealed secret has no versions."""
    pointer = (await begun.stored.endpoint()).pointer
    table = (await begun.run("secret", "versions", *options_of(pointer.endpoint_id))).out.splitlines()
    assert ["version", "state", "scheme", "signs", "attempts", "needed", "ref"] == table[0].split()
    assert ["1", "active", "standard", "yes", "0", "yes", pointer.secret_ref] == table[1].split()
    assert ["", "version 1: every new attempt is signed with it"] == table[2:]
    [ring] = await begun.stored.deliveries()
    await rows.attempt(begun.stored.pool, ring.delivery_id, started_at=STARTED, signed_by=[pointer.secret_ref])
    await begun.stored.rotate(pointer.endpoint_id, overlap_seconds=3_600)
    of = ("secret", "versions", *options_of(pointer.endpoint_id))
    until = (await begun.run(*of, "--json")).json["items"][0]["signs_until"]
    also = f"every new attempt is signed with it too, until its overlap ends ({until})"
    assert f"version 1: {also}; last signed 2026-03-01T12:00:00.250Z" == (await begun.run(*of)).out.splitlines()[-2]
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', $1, 'https://x/', '{*}', 's')",
        UNKNOWN,
    )
    assert "the endpoint has no sealed secret\n" == (await begun.run("secret", "versions", *options_of(UNKNOWN))).out


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("OPS-10")
async def test_cache_clear_raises_the_epoch(begun: Begun) -> None:
    """Each call raises the cache epoch by one, prints it and audits it."""
    ended = await begun.run("secret", "cache-clear", "--json")
    assert (0, {"epoch": 1, "woken": 0}) == (ended.code, ended.json)
    assert "before epoch 2 are not used again" in (await begun.run("secret", "cache-clear")).out
    assert 2 == await begun.stored.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    assert ["cache.cleared"] * 2 == [entry["action"] for entry in await audited(begun.stored.pool, "_system")]
