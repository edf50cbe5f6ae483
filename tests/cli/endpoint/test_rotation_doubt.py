"""A rotation whose input is empty, whose answer is lost, or that retires a version at once."""

import re
from pathlib import Path

import pytest

from hookseal.cli.shared.secret_files import SecretOutput
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import Event, publish_raw
from hookseal.errors import Conflict, InDoubt
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.signing import generate_signing_secret
from tests.cli.endpoint.test_rotation import added, run
from tests.cli.installation import Begun
from tests.cli.lost_commit_proxy import losing_the_commit


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("given", [b"", b"\n"])
async def test_an_empty_secret_is_refused(begun: Begun, given: bytes) -> None:
    """An empty secret, as from a failed pipe, is refused (2) and not replaced by a generated one."""
    endpoint = await added(begun)
    ended = await begun.fed(
        given,
        *("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint, "--overlap", "0"),
        *("--secret-file", "-", "--json"),
    )

    assert (2, "secret") == (ended.code, ended.json["error"]["field"])
    assert 1 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")


@pytest.mark.req("SEC-10")
async def test_force_counts_older_claims(begun: Begun) -> None:
    """A forced rotation retires the previous version at once and counts the claims made before."""
    endpoint = await added(begun)
    await run(begun, "rotate", endpoint, "--overlap", "60")
    [ring] = (await publish_raw(begun.stored.pool, Event(tenant_id=TenantId("acme"), event_type="a"), b"{}")).deliveries
    assert await PostgresLedger(begun.stored.pool, worker="w1", lease_seconds=60).claim(ring) is not None
    ended = await run(begun, "rotate", endpoint, "--overlap", "60", "--force", "--no-wait")

    assert (0, 1) == (ended.code, ended.json["older_claims"])


@pytest.mark.parametrize(("error", "stays"), [(InDoubt(), True), (KeyboardInterrupt(), True), (Conflict(), False)])
def test_the_secret_file_stays_if_the_commit_is_in_doubt(tmp_path: Path, error: BaseException, stays: bool) -> None:
    """The file of the secret stays if the commit is in doubt, and is removed after a refusal."""
    file = tmp_path / "secret"
    with (
        pytest.raises(type(error)),
        SecretOutput(file, print_it=False, as_json=True).keeping(generate_signing_secret()),
    ):
        raise error

    assert stays is file.exists()


@pytest.mark.req("OPS-04", part="errors")
async def test_an_argument_that_is_not_utf8_is_one_error(begun: Begun) -> None:
    """An argument that is not UTF-8 gives one JSON error with the usual exit code."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, "--secret-file", "\udcff")

    assert ended.json["error"]["message"].startswith("\\udcff cannot be read")
    assert ended.code in {2, 3}


@pytest.mark.req("SEC-09")
async def test_a_lost_commit_keeps_the_secret_file(begun: Begun, tmp_path: Path) -> None:
    """The command exits 69 and says how to find out the result; the file stays, and its secret is in use."""
    endpoint = await added(begun)
    first, second = tmp_path / "first", tmp_path / "second"
    of = ("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint)
    async with losing_the_commit(begun.settings["DATABASE_URL"]) as url:
        ended = await begun.run(*of, "--secret-out", str(first), "--json", DATABASE_URL=url)

    assert (69, "in_doubt") == (ended.code, ended.json["error"]["code"])
    rotation = re.search(r"--rotation-id (\S+?),", ended.json["error"]["message"])
    assert rotation is not None
    assert 2 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")
    again = await begun.run(*of, "--rotation-id", rotation[1], "--secret-out", str(second), "--json")
    assert (0, 2) == (again.code, again.json["generation"])
    assert first.read_text() == second.read_text()


@pytest.mark.req("SEC-09")
async def test_a_lost_commit_of_a_new_endpoint_keeps_the_secret_file(begun: Begun, tmp_path: Path) -> None:
    """`endpoint add` does the same, and the file of the secret stays, since the endpoint exists."""
    file = tmp_path / "secret"
    async with losing_the_commit(begun.settings["DATABASE_URL"]) as url:
        ended = await begun.run(
            *("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*"),
            *("--secret-out", str(file), "--json"),
            DATABASE_URL=url,
        )

    assert (69, "in_doubt", True) == (ended.code, ended.json["error"]["code"], file.exists())
    assert 1 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
