"""The headers of an endpoint, added and changed: values are sealed, names are audited, changes are all or nothing."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, Malformed, NotFound, SecretTampered, StaleRow
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import AddedEndpoint, add_endpoint, delete_endpoint
from hookseal.operations.endpoint.update import Updated, update_endpoint
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras.stored import EndpointExtras
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

TENANT = TenantId("acme")
CANARY = "Zq7-canary"
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))


def values(**headers: str) -> dict[str, SecretMaterial]:
    """Return these headers, each value with the canary as a prefix."""
    return {name.replace("_", "-"): SecretMaterial(f"{CANARY} {value}".encode()) for name, value in headers.items()}


async def added(installation: Installation, **headers: str) -> AddedEndpoint:
    """Add an endpoint with these headers."""
    return await installation.act(
        add_endpoint, NEW, None, own_drain_seconds=25, own=EndpointExtras(headers=values(**headers))
    )


async def updated(installation: Installation, endpoint: EndpointId, change: HeaderChange | None, **to: Any) -> Updated:
    """Change the headers, and these fields, on its own connection."""
    expect = to.pop("expect", None)
    wanted = to | ({} if change is None else {"headers": change})
    return await installation.act(
        update_endpoint, TENANT, endpoint, wanted, own_drain_seconds=25, expect_generation=expect
    )


async def pointed(installation: Installation, endpoint: EndpointId) -> Pointer:
    async with installation.pool.acquire() as connection, connection.transaction():
        return await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint)


async def opened(installation: Installation, endpoint: EndpointId) -> dict[str, str]:
    """Return the headers that a worker would send now."""
    async with installation.unlocked.service.headers(await pointed(installation, endpoint)) as found:
        return {name: value.reveal().decode().removeprefix(f"{CANARY} ") for name, value in found.items()}


async def states(installation: Installation) -> list[str]:
    """Return the states of the versions of header values, oldest first."""
    rows = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE name LIKE 'endpoint-headers-%' ORDER BY version"
    )
    return [row["state"] for row in rows]


async def names(installation: Installation) -> list[str]:
    """Return the header names in the row."""
    found: list[str] = await installation.pool.fetchval("SELECT header_names FROM hookseal.endpoints")
    return found


async def everything(pool: Pool) -> str:
    """Return every row of every table as text."""
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'hookseal' ORDER BY 1")
    rows = [await pool.fetch(f'SELECT * FROM hookseal."{table[0]}"') for table in tables]  # noqa: S608 -- ours
    return "\n".join(
        str([bytes(cell) if isinstance(cell, bytes) else cell for cell in row]) for one in rows for row in one
    )


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_header_values_are_stored_sealed(installation: Installation) -> None:
    endpoint = await added(installation, authorization="Bearer x", x_key="k")
    found = endpoint.pointer

    assert f"db:acme:endpoint-headers-{found.endpoint_id}:1" == found.headers_ref
    installation.unlocked.integrity.verify(found)
    assert ["authorization", "x-key"] == await names(installation)
    assert {"authorization": "Bearer x", "x-key": "k"} == await opened(installation, found.endpoint_id)
    (entry,) = await audited(installation.pool)
    assert (["authorization", "x-key"], found.headers_ref) == (
        entry["after"]["header_names"],
        entry["after"]["headers_ref"],
    )
    assert CANARY not in await everything(installation.pool)


@pytest.mark.req("DEL-13", part="rules")
async def test_headers_that_may_not_be_sent_add_nothing(installation: Installation) -> None:
    for headers in ({"webhook_id": "x"}, {"x": "a\r\nhost: b"}, {"x": "a\0"}, {"x": "\u00e4"}):
        with pytest.raises(Malformed) as caught:
            await added(installation, **headers)
        assert CANARY not in str(caught.value)
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
    assert [] == await states(installation)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_change_makes_one_version(installation: Installation) -> None:
    endpoint = (await added(installation, a="1", b="2", c="3")).pointer.endpoint_id
    change = HeaderChange(given=values(b="9", d="4"), removed=frozenset({"c"}))
    answer = await updated(installation, endpoint, change, name="Billing")

    assert Updated(changed=("name", "headers"), generation=2) == answer
    assert {"name": None, "headers": ("a", "b", "c")} == dict(answer.before)
    assert {"a": "1", "b": "9", "d": "4"} == await opened(installation, endpoint)
    assert ["a", "b", "d"] == await names(installation)
    assert ["retired", "active"] == await states(installation)
    *_, entry = await audited(installation.pool)
    ref = f"db:acme:endpoint-headers-{endpoint}"
    assert {
        "action": "endpoint.updated",
        "subject": f"endpoint:{endpoint}",
        "who": "ada@desk",
        "before": {"name": None, "header_names": ["a", "b", "c"], "headers_ref": f"{ref}:1", "generation": 1},
        "after": {
            "name": "Billing",
            "header_names": ["a", "b", "d"],
            "headers_ref": f"{ref}:2",
            "generation": 2,
            "headers_changed": ["b", "c", "d"],
            "key_id": await installation.unlocked.sealing_key_id(installation.pool),
        },
    } == entry
    assert CANARY not in await everything(installation.pool)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_version_numbers_continue_after_a_removal(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    await updated(installation, endpoint, HeaderChange(given={}, removed=frozenset({"a"})))

    assert (None, {}, []) == (
        (await pointed(installation, endpoint)).headers_ref,
        await opened(installation, endpoint),
        await names(installation),
    )
    assert ["retired"] == await states(installation)
    await updated(installation, endpoint, HeaderChange(given=values(b="2"), replaces_all=True))
    assert {"b": "2"} == await opened(installation, endpoint)
    assert ["retired", "active"] == await states(installation)


async def test_present_headers_change_nothing(installation: Installation) -> None:
    endpoint = (await added(installation, a="1", b="2")).pointer.endpoint_id
    for change in (
        HeaderChange(given=values(a="1")),
        HeaderChange(given=values(a="1", b="2"), replaces_all=True),
        HeaderChange(given={}),
    ):
        assert Updated(changed=(), generation=1) == await updated(installation, endpoint, change)
    assert ["active"] == await states(installation)
    assert 1 == len(await audited(installation.pool))


async def test_a_refused_change_changes_nothing(installation: Installation) -> None:
    endpoint = (await added(installation, a="1", **{f"h{number}": "x" for number in range(19)})).pointer.endpoint_id
    with pytest.raises(NotFound, match="no header zz"):
        await updated(installation, endpoint, HeaderChange(given={}, removed=frozenset({"zz"})), name="Billing")
    with pytest.raises(Malformed, match="at most 20 headers"):
        await updated(installation, endpoint, HeaderChange(given=values(one_more="x")), name="Billing")
    with pytest.raises(Conflict):
        await updated(installation, endpoint, HeaderChange(given=values(a="2")), expect=7)

    assert "1" == (await opened(installation, endpoint))["a"]
    assert None is await installation.pool.fetchval("SELECT name FROM hookseal.endpoints")
    assert ["active"] == await states(installation)


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_an_altered_row_gives_no_headers(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET lead = 'current'")
    for change in (HeaderChange(given=values(a="2")), HeaderChange(given={}, replaces_all=True)):
        with pytest.raises(SecretTampered):
            await updated(installation, endpoint, change)
    assert ["active"] == await states(installation)


async def test_replacing_all_repairs_an_altered_record(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 200, get_byte(sealed, 200) # 1)"
        " WHERE name LIKE 'endpoint-headers-%'"
    )
    with pytest.raises(SecretTampered):
        await updated(installation, endpoint, HeaderChange(given=values(b="2")))
    await updated(installation, endpoint, HeaderChange(given=values(b="2"), replaces_all=True))

    assert {"b": "2"} == await opened(installation, endpoint)


@pytest.mark.req("SEC-09")
async def test_of_concurrent_changes_one_succeeds(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    ended = await asyncio.gather(
        *(updated(installation, endpoint, HeaderChange(given=values(a=f"n{n}")), expect=1) for n in range(6)),
        return_exceptions=True,
    )
    assert 5 == sum(isinstance(each, Conflict) for each in ended)
    await asyncio.gather(
        *(updated(installation, endpoint, HeaderChange(given=values(**{f"h{n}": "x"}))) for n in range(6))
    )

    assert {"a", *(f"h{n}" for n in range(6))} == (await opened(installation, endpoint)).keys()
    assert 1 == (await states(installation)).count("active")


@pytest.mark.req("SEC-07")
async def test_new_values_release_a_held_delivery(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    await installation.deliveries()
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', rung_at = now(),"
        " next_attempt_at = now() + interval '9 s'"
    )
    is_due = "SELECT rung_at IS NULL AND next_attempt_at <= now() AND waiting_for IS NULL FROM hookseal.deliveries"
    await updated(installation, endpoint, None, name="Billing")
    await installation.settle()
    assert not await installation.pool.fetchval(is_due)
    await updated(installation, endpoint, HeaderChange(given=values(a="2")))
    await installation.settle()
    assert await installation.pool.fetchval(is_due)


@pytest.mark.req("SEC-24", part="pointer-mac")
async def test_a_restored_row_is_refused_as_stale(installation: Installation) -> None:
    endpoint = (await added(installation, a="1")).pointer.endpoint_id
    columns = await installation.pool.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
        " WHERE attrelid = 'hookseal.endpoints'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
    )
    await installation.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints")
    await installation.act(delete_endpoint, TENANT, endpoint)
    assert ["retired"] == await states(installation)
    *_, entry = await audited(installation.pool)
    assert (f"db:acme:endpoint-headers-{endpoint}:1", 2) == (
        entry["before"]["headers_ref"],
        entry["after"]["generation"],
    )

    await installation.pool.execute(f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept")  # noqa: S608 -- ours
    with pytest.raises(StaleRow):
        installation.unlocked.integrity.verify(await pointed(installation, endpoint))


@pytest.mark.req("OPS-10")
async def test_the_operator_role_suffices(installation: Installation, database_url: str) -> None:
    async with login(installation.pool, database_url, "hookseal_operator") as (_, url):
        connection = await asyncpg.connect(url)
        try:
            stored = replace(
                installation, unlocked=replace(installation.unlocked, store=installation.unlocked.store_on(connection))
            )
            by = stored.operator(connection)
            new = replace(NEW, settings={"rotate_every_days": 30})
            one = await add_endpoint(by, new, None, own_drain_seconds=25, own=EndpointExtras(headers=values(a="1")))
            endpoint = one.pointer.endpoint_id
            for wanted in (
                {"headers": HeaderChange(given=values(b="2"))},
                {"headers": HeaderChange(given={}, replaces_all=True), "rotate_every_days": None},
                {"headers": HeaderChange(given=values(c="2"))},
            ):
                assert (await update_endpoint(by, TENANT, endpoint, wanted, own_drain_seconds=25)).changed
        finally:
            await connection.close()


async def test_the_rotation_period_is_audited(installation: Installation) -> None:
    endpoint = (await installation.add(replace(NEW, settings={"rotate_every_days": 30}))).pointer.endpoint_id
    stored = "SELECT rotate_every_days FROM hookseal.endpoints"
    assert 30 == await installation.pool.fetchval(stored)
    for period in (7, None):
        assert Updated(changed=("rotate_every_days",), generation=1) == await updated(
            installation, endpoint, None, rotate_every_days=period
        )
        assert period == await installation.pool.fetchval(stored)
    first, *_, last = await audited(installation.pool)
    assert (30, 7, None) == (
        first["after"]["rotate_every_days"],
        last["before"]["rotate_every_days"],
        last["after"]["rotate_every_days"],
    )
    assert json.dumps(last)
