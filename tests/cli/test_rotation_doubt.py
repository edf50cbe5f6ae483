"""What a rotation does when its input is empty, its answer is lost, or it retires a version at once."""

import re
from pathlib import Path

import pytest

from hookseal.cli.secret_files import SecretOutput
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.publish import Event, publish_raw
from hookseal.ground.errors import Conflict, InDoubt
from hookseal.ground.ids import TenantId
from hookseal.secrets.signer import generate_signing_secret
from tests.cli.begun import Begun
from tests.cli.losing import losing_the_commit
from tests.cli.test_rotation import added, run


@pytest.mark.req("SEC-09")
@pytest.mark.parametrize("given", [b"", b"\n"])
async def test_an_empty_secret_is_refused(begun: Begun, given: bytes) -> None:
    """A pipe whose left side failed gives no secret: that is refused (2), never replaced by one that nobody chose."""
    endpoint = await added(begun)
    ended = await begun.fed(
        given,
        *("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint, "--overlap", "0"),
        *("--secret-file", "-", "--json"),
    )

    assert (2, "secret") == (ended.code, ended.json["error"]["field"])
    assert 1 == await begun.stored.pool.fetchval("SELECT generation FROM hookseal.endpoints")


@pytest.mark.req("SEC-10")
async def test_force_tells_of_older_claims(begun: Begun) -> None:
    """A forced rotation retires the older previous version at once, so what was claimed before is counted."""
    endpoint = await added(begun)
    await run(begun, "rotate", endpoint, "--overlap", "60")
    [ring] = (await publish_raw(begun.stored.pool, Event(tenant_id=TenantId("acme"), event_type="a"), b"{}")).deliveries
    assert await PostgresLedger(begun.stored.pool, worker="w1", lease_seconds=60).claim(ring) is not None
    ended = await run(begun, "rotate", endpoint, "--overlap", "60", "--force", "--no-wait")

    assert (0, 1) == (ended.code, ended.json["older_claims"])


@pytest.mark.parametrize(("error", "stays"), [(InDoubt(), True), (KeyboardInterrupt(), True), (Conflict(), False)])
def test_a_file_stays_where_it_may_be_needed(tmp_path: Path, error: BaseException, stays: bool) -> None:
    """If it is not known whether the secret was stored its file stays; after a refusal it is gone again."""
    file = tmp_path / "secret"
    with (
        pytest.raises(type(error)),
        SecretOutput(file, print_it=False, as_json=True).keeping(generate_signing_secret()),
    ):
        raise error

    assert stays is file.exists()


@pytest.mark.req("OPS-04", part="errors")
async def test_an_argument_that_is_no_utf8(begun: Begun) -> None:
    """An error about such an argument is one JSON object with the exit code that it has for any other."""
    endpoint = await added(begun)
    ended = await run(begun, "rotate", endpoint, "--secret-file", "\udcff")

    assert ended.json["error"]["message"].startswith("\\udcff cannot be read")
    assert ended.code in {2, 3}


@pytest.mark.req("SEC-09")
async def test_the_answer_to_the_commit_is_lost(begun: Begun, tmp_path: Path) -> None:
    """The command says that it does not know (69) and how to learn it; the file stays, and its secret is in force."""
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
async def test_a_new_endpoint_in_doubt(begun: Begun, tmp_path: Path) -> None:
    """`endpoint add` says so as well, and keeps the file of the secret, for the endpoint is there."""
    file = tmp_path / "secret"
    async with losing_the_commit(begun.settings["DATABASE_URL"]) as url:
        ended = await begun.run(
            *("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*"),
            *("--secret-out", str(file), "--json"),
            DATABASE_URL=url,
        )

    assert (69, "in_doubt", True) == (ended.code, ended.json["error"]["code"], file.exists())
    assert 1 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
