"""Which version of a secret is still needed, and which versions are known."""

import re
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from hookseal.errors import Malformed, NotFound
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.store import version_report
from hookseal.secrets.store.port import VersionState
from hookseal.secrets.store.version_report import need, require_known, signing_ref
from tests.doubles.stored import begin
from tests.secrets.samples import ENDPOINT, NAME, OTHER_TENANT, TENANT, ref

Pool = asyncpg.Pool
UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
ACTIVE, PREVIOUS, RETIRED, DESTROYED = VersionState


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize(
    ("state", "signs", "until", "claims", "needed", "reason"),
    [
        pytest.param(ACTIVE, True, None, 0, True, "every new attempt is signed with it$", id="current"),
        pytest.param(ACTIVE, True, None, 7, True, "every new attempt is signed with it$", id="current-in-flight"),
        pytest.param(PREVIOUS, True, UNTIL, 0, True, "until its overlap ends$", id="overlap"),
        pytest.param(RETIRED, True, None, 0, True, "every new attempt is signed with it$", id="retired-by-hand"),
        pytest.param(DESTROYED, True, None, 0, True, "destroyed, so deliveries wait: rotate$", id="current-destroyed"),
        pytest.param(DESTROYED, True, UNTIL, 0, True, "destroyed, so deliveries wait: rotate$", id="overlap-destroyed"),
        pytest.param(PREVIOUS, False, None, 1, True, "wait until they end$", id="over-in-flight"),
        pytest.param(RETIRED, False, None, 2, True, "wait until they end$", id="retired-in-flight"),
        pytest.param(DESTROYED, False, None, 1, True, "wait until they end$", id="destroyed-in-flight"),
        pytest.param(ACTIVE, False, None, 0, True, "its endpoint does not name it", id="active-unnamed"),
        pytest.param(PREVIOUS, False, None, 0, False, "overlap is over .* safe to destroy; .*purge --older", id="over"),
        pytest.param(RETIRED, False, None, 0, False, "signs no more .* safe to destroy; .*purge --older", id="retired"),
        pytest.param(DESTROYED, False, None, 0, False, "what it signed stays on record$", id="destroyed"),
    ],
)
def test_a_version_is_needed_while_it_may_sign(
    state: VersionState, signs: bool, until: datetime | None, claims: int, needed: bool, reason: str
) -> None:
    """A version is needed while it signs, while a claim in flight uses it, and while it is active, with the reason."""
    found = need(state, signs=signs, signs_until=until, claims_in_flight=claims)
    assert needed is found.needed
    assert re.search(reason, found.reason)


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize("state", VersionState)
def test_a_version_in_a_stale_row_is_needed(state: VersionState) -> None:
    """A version that a stale row names is needed: it would sign once the row is accepted."""
    found = need(state, signs=False, signs_until=None, claims_in_flight=0, named_by_old_row=True)
    assert found.needed
    assert "restore check" in found.reason


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize("provider", Provider)
def test_the_ref_of_an_endpoints_secret_names_the_endpoint(provider: Provider) -> None:
    """The ref of an endpoint's secret names the endpoint, with any provider."""
    assert (ref(7, provider), ENDPOINT) == signing_ref(str(ref(7, provider)))


@pytest.mark.req("SEC-23")
@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "shape"),
        (f"db:acme:{NAME}:07", "version"),
        (f"db:acme:{NAME}", "shape"),
        (f"DB:acme:{NAME}:7", "provider"),
        (f"db:_system:{NAME}:7", "tenant"),
        ("db:_system:integrity:1", "tenant"),
        (f"db:acme:{ENDPOINT}:7", "name"),
        (f"db:acme:endpoint-headers-{ENDPOINT}:7", "name"),
        (f"db:acme:webhook-endpoint-{NAME}:7", "name"),
        ("db:acme:webhook-endpoint-:7", "name"),
        (f"db:acme:{NAME.upper()}:7", "name"),
        ("db:acme:" + "x" * 512 + ":7", "length"),
    ],
)
def test_a_ref_of_no_endpoint_is_refused(text: str, part: str) -> None:
    """A text that is not the ref of an endpoint's secret is refused; the error names the part, never the value."""
    with pytest.raises(Malformed, match=rf"^secret ref: its {part} must be ") as caught:
        signing_ref(text)
    assert "signed_by" == caught.value.field
    assert ENDPOINT not in str(caught.value)


@pytest.mark.req("SEC-23")
async def test_an_unknown_version_is_not_found(pool: "Pool[asyncpg.Record]") -> None:
    """A version that exists, or was destroyed, is known; another number, name, provider or tenant is not found."""
    added = await (await begin(pool)).endpoint()
    stored = SecretRef.parse(added.pointer.secret_ref or "")
    parts: dict[str, Any] = {"provider": stored.provider, "tenant": stored.tenant, "name": stored.name, "version": 1}
    await require_known(pool, stored)
    for changed in ({"version": 2}, {"name": NAME}, {"provider": Provider.AWS}, {"tenant": OTHER_TENANT}):
        with pytest.raises(NotFound) as caught:
            await require_known(pool, SecretRef(**parts | changed))
        assert "signed_by" == caught.value.field
    await pool.execute("UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL")
    await require_known(pool, stored)


async def test_only_the_previous_secret_has_an_end_of_signing(pool: "Pool[asyncpg.Record]") -> None:
    """Only the previous secret has an end of signing; after that end it neither signs nor has one."""
    installation = await begin(pool)
    endpoint = (await installation.endpoint()).pointer
    first = SecretRef.parse(endpoint.secret_ref or "")
    second = SecretRef(provider=first.provider, tenant=TENANT, name=first.name, version=2)
    await pool.execute("UPDATE hookseal.secret_records SET state = 'previous' WHERE tenant_id = 'acme'")
    await pool.execute(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, scheme, sealed)"
        " SELECT tenant_id, name, 2, provider, purpose, scheme, sealed FROM hookseal.secret_records"
        " WHERE tenant_id = 'acme'"
    )
    overlap = (
        "UPDATE hookseal.endpoints SET secret_ref = $1, previous_secret_ref = $2,"
        " previous_secret_expires_at = now() + make_interval(secs => $3) RETURNING previous_secret_expires_at"
    )
    until = await pool.fetchval(overlap, str(second), str(first), 60.0)

    async def read() -> list[tuple[bool, datetime | None]]:
        found = await version_report.of_endpoint(pool, TENANT, endpoint.endpoint_id)
        return [(one["signs"], one["signs_until"]) for one in found]

    assert [(True, until), (True, None)] == await read()
    await pool.execute(overlap, str(second), str(first), -1.0)
    assert [(False, None), (True, None)] == await read()
    await pool.execute(overlap, str(first), str(first), 60.0)
    assert [(True, None), (False, None)] == await read()
    await pool.execute("DELETE FROM hookseal.endpoints")
    assert [(False, None), (False, None)] == await read()
