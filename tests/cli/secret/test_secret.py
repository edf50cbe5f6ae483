"""`hookseal secret` lists the versions of a secret without the secret itself, and clears the caches of workers."""

import pytest

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.cli.command import hookseal
from tests.cli.endpoint.test_add import NOWHERE
from tests.cli.installation import Begun, options_of
from tests.doubles.logbook import audited

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"


async def rotated(begun: Begun, endpoint: EndpointId, *, overlap: int) -> None:
    """Rotate the endpoint's secret."""
    async with begun.stored.pool.acquire() as connection:
        await rotate_secret(
            begun.stored.operator(connection),
            RotationRequest(
                tenant_id=TenantId("acme"),
                endpoint_id=endpoint,
                overlap_seconds=overlap,
                secret=generate_signing_secret(),
                force=True,
            ),
        )


async def versions(begun: Begun, endpoint: str) -> list[tuple[str, str, bool]]:
    """Return version, state and whether it signs, for each version, oldest first."""
    items = (await begun.run("secret", "versions", *options_of(endpoint), "--json")).json["items"]
    return [(item["ref"].rpartition(":")[2], item["state"], item["signs"]) for item in items]


@pytest.mark.req("OPS-04", part="json")
async def test_every_version_is_listed(begun: Begun) -> None:
    """Every version is listed; the current one signs, and during an overlap the previous one, too."""
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

    await rotated(begun, endpoint, overlap=3_600)
    assert [("1", "previous", True), ("2", "active", True)] == await versions(begun, endpoint)
    await rotated(begun, endpoint, overlap=0)
    assert [("1", "retired", False), ("2", "retired", False), ("3", "active", True)] == await versions(begun, endpoint)
    await rotated(begun, endpoint, overlap=3_600)
    await begun.stored.pool.execute(
        "UPDATE hookseal.endpoints SET previous_secret_expires_at = now() - interval '1 second'"
    )
    assert [("3", "previous", False), ("4", "active", True)] == (await versions(begun, endpoint))[2:]


async def test_the_text_is_a_table(begun: Begun) -> None:
    """The text is a table; an endpoint of an older system without a sealed secret has no versions."""
    pointer = (await begun.stored.endpoint()).pointer
    table = (await begun.run("secret", "versions", *options_of(pointer.endpoint_id))).out.splitlines()
    assert ["ref", "state", "scheme", "signs", "attempts", "needed"] == table[0].split()
    assert [pointer.secret_ref, "active", "standard", "yes", "0", "yes"] == table[1].split()
    assert ["", "version 1: every new attempt is signed with it"] == table[2:]
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', $1, 'https://x/', '{*}', 's')",
        UNKNOWN,
    )
    assert "the endpoint has no sealed secret\n" == (await begun.run("secret", "versions", *options_of(UNKNOWN))).out


@pytest.mark.req("SEC-08")
@pytest.mark.req("OPS-04", part="errors")
async def test_another_tenants_endpoint_is_not_found(begun: Begun) -> None:
    """For another tenant's endpoint the answer is the same as for one that does not exist."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    others = await begun.run("secret", "versions", *options_of(endpoint, "globex"), "--json")
    unknown = await begun.run("secret", "versions", *options_of(UNKNOWN), "--json")
    assert (3, "endpoint") == (others.code, others.json["error"]["field"])
    assert (3, others.out) == (unknown.code, unknown.out)


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("options", "field"), [(options_of("x"), "endpoint"), (options_of(UNKNOWN, "_system"), "tenant")]
)
async def test_a_malformed_value_names_its_field(options: tuple[str, ...], field: str) -> None:
    """Each kind of bad value exits 2 with its field, before a database is contacted."""
    ended = await hookseal("secret", "versions", *options, "--json", **NOWHERE)
    assert (2, field) == (ended.code, ended.json["error"]["field"])


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("OPS-10")
async def test_cache_clear_raises_the_epoch(begun: Begun) -> None:
    """Each call raises the cache epoch by one, prints it and audits it."""
    ended = await begun.run("secret", "cache-clear", "--json")
    assert (0, {"epoch": 1, "woken": 0}) == (ended.code, ended.json)
    assert "before epoch 2 are not used again" in (await begun.run("secret", "cache-clear")).out
    assert 2 == await begun.stored.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    assert ["cache.cleared"] * 2 == [entry["action"] for entry in await audited(begun.stored.pool, "_system")]


@pytest.mark.parametrize("command", ["versions", "cache-clear"])
async def test_help_has_an_example(command: str) -> None:
    """The help has an example."""
    assert f"Example: hookseal secret {command}" in (await hookseal("secret", command, "--help")).out
