"""`hookseal migrate-secrets` as an operator runs it: dry run, run, repeat, `--finalize`, and removal of the column."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tests.cli.command import hookseal
from tests.cli.endpoint.test_add import NOWHERE
from tests.cli.installation import Begun
from tests.doubles.legacy import SECRET, legacy, row
from tests.doubles.logbook import audited
from tests.doubles.logins import login

WHSEC = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
pytestmark = [pytest.mark.req("SEC-12"), pytest.mark.timeout(300)]


def shape(**changes: Any) -> dict[str, Any]:
    """Return the expected JSON, with these changes."""
    return {
        "dry_run": False, "finalize": False, "scheme": "x-webhook", "column": "there", "migrated": 0, "present": 0,
        "also_standard": 0, "emptied": 0, "failures": 0, "failed": [],
    } | changes  # fmt: skip


@pytest.fixture
async def operator_installation(begun: Begun) -> AsyncIterator[Begun]:
    """Yield the installation with a login that has only the operator role."""
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"], "hookseal_operator") as (_, url):
        yield replace(begun, settings=begun.settings | {"DATABASE_URL": url})


async def insert_plaintext_endpoint(begun: Begun, number: int, secret: str = SECRET) -> PlaintextEndpoint:
    """Insert an endpoint of an older system."""
    return await legacy(begun.stored.pool, secret, tenant=f"t{number}", url=f"https://receiver.example/{number}")


async def refs(begun: Begun) -> list[str]:
    """Return the refs of all endpoints, in order."""
    rows = await begun.stored.pool.fetch("SELECT secret_ref FROM hookseal.endpoints ORDER BY tenant_id")
    return [each["secret_ref"] for each in rows]


@pytest.mark.req("OPS-10")
async def test_plaintext_is_migrated_once(operator_installation: Begun) -> None:
    """The operator role can do a dry run, the migration and a repeat; an early `--finalize` is refused."""
    endpoints = [await insert_plaintext_endpoint(operator_installation, number) for number in range(3)]
    dry_run = await operator_installation.run("migrate-secrets", "--dry-run", "--json")
    assert (0, shape(dry_run=True, migrated=3)) == (dry_run.code, dry_run.json)
    assert all(
        f"hookseal: {each.tenant_id} {each.endpoint_id}: would be migrated\n" in dry_run.err for each in endpoints
    )
    assert dry_run.err.endswith("hookseal: 3 of 3 endpoints: 3 would be migrated\n")
    assert [None] * 3 == await refs(operator_installation)
    early = await operator_installation.run("migrate-secrets", "--finalize", "--json")
    assert (5, "refused") == (early.code, early.json["error"]["code"])
    assert "3 endpoints have a plaintext secret" in early.json["error"]["message"]

    done = await operator_installation.run("migrate-secrets")
    assert (0, "hookseal: 3 of 3 endpoints: 3 migrated\n") == (done.code, done.err)
    assert "migrated  3\n" in done.out
    assert "hookseal migrate-secrets --finalize" in done.out
    again = await operator_installation.run("migrate-secrets", "--json")
    assert (0, shape(present=3)) == (again.code, again.json)


@pytest.mark.req("OPS-10")
async def test_finalizing_lets_the_upgrade_drop_the_column(operator_installation: Begun, database_url: str) -> None:
    """An operator finalizes after a dry run; then the owner's upgrade drops the column, and nothing is left to do."""
    endpoints = [await insert_plaintext_endpoint(operator_installation, number) for number in range(3)]
    await operator_installation.run("migrate-secrets")
    for dry_run in (True, False):
        final = await operator_installation.run(
            "migrate-secrets", "--finalize", "--json", *(["--dry-run"] if dry_run else [])
        )
        assert 0 == final.code
        expected = shape(finalize=True, dry_run=dry_run, present=3)
        assert (expected if dry_run else expected | {"emptied": 3, "column": "forbidden"}) == final.json
    assert [None] * 3 == [(await row(operator_installation.stored.pool, each))["secret"] for each in endpoints]
    assert None not in await refs(operator_installation)
    nothing = await operator_installation.run("migrate-secrets", "--finalize", "--json")
    assert (0, shape(finalize=True, column="forbidden")) == (nothing.code, nothing.json)
    assert 1 == [each["action"] for each in await audited(operator_installation.stored.pool, "_system")].count(
        "secret.plaintext_forbidden"
    )

    url = {"DATABASE_URL": database_url}
    before = await operator_installation.run("db", "status", **url)
    assert (0, True) == (before.code, "`hookseal db upgrade` removes their column" in before.out)
    assert "gone" == (await operator_installation.run("db", "upgrade", "--json", **url)).json["plaintext_column"]
    gone = await operator_installation.run("migrate-secrets", "--json")
    assert (0, shape(column="gone")) == (gone.code, gone.json)
    assert (
        "the column of plaintext secrets is gone: nothing to do\n"
        == (await operator_installation.run("migrate-secrets")).out
    )
    assert "gone" == (await operator_installation.run("db", "status", "--json")).json["plaintext_column"]


async def test_finalize_says_where_old_values_remain(begun: Begun) -> None:
    """`--finalize` says where the old values still exist, and how to make them worthless."""
    await insert_plaintext_endpoint(begun, 1)
    await begun.run("migrate-secrets")
    out = (await begun.run("migrate-secrets", "--finalize")).out

    for word in ("write-ahead log", "replicas", "backups", "audit list --action secret.migrated", "endpoint rotate"):
        assert word in out


async def test_a_whsec_secret_signs_as_x_webhook_with_a_warning(begun: Begun, tmp_path: Path) -> None:
    """A `whsec_` signs as x-webhook with its text unchanged; every run warns until the scheme is changed."""
    endpoints = [
        await insert_plaintext_endpoint(begun, number, secret)
        for number, secret in enumerate((WHSEC, SECRET, "whsec_short"))
    ]
    dry_run = await begun.run("migrate-secrets", "--dry-run", "--json")
    assert (0, shape(dry_run=True, migrated=3, also_standard=1)) == (dry_run.code, dry_run.json)
    output = (await begun.run("migrate-secrets", "--dry-run")).out
    assert "1 of them with the scheme x-webhook and a secret that could be one of Standard Webhooks" in output
    assert "\n  hookseal migrate-secrets --scheme standard\n" in output
    done = await begun.run("migrate-secrets")
    assert (0, True) == (done.code, "1 of them with the scheme x-webhook and a secret that could be" in done.out)
    assert (await begun.run("migrate-secrets", "--json")).json == shape(present=3, also_standard=1)
    assert {"x-webhook"} == {(await row(begun.stored.pool, each))["scheme"] for each in endpoints}

    # The command that the warning names works.
    of = ("--tenant", endpoints[0].tenant_id, "--endpoint", endpoints[0].endpoint_id)
    assert 0 == (await begun.run("secret", "reveal", *of, "--secret-out", str(tmp_path / "F"))).code
    file = ("--secret-file", str(tmp_path / "F"))
    rotated = await begun.run("endpoint", "rotate", *of, "--scheme", "standard", *file, "--overlap", "0", "--no-wait")
    assert (0, "standard") == (rotated.code, (await row(begun.stored.pool, endpoints[0]))["scheme"])
    assert WHSEC == (await begun.run("secret", "reveal", *of, "--json", "--print-secret")).json["secret"]
    again = await begun.run("migrate-secrets")
    assert "could be one of Standard Webhooks" not in again.out


async def test_scheme_standard_needs_whsec_secrets(begun: Begun) -> None:
    """With `--scheme standard` each secret must be a `whsec_`; others fail and can be migrated as x-webhook."""
    endpoints = [
        await insert_plaintext_endpoint(begun, number, secret)
        for number, secret in enumerate((WHSEC, SECRET, "whsec_short"))
    ]
    for more in (("--dry-run",), ()):
        ended = await begun.run("migrate-secrets", "--scheme", "standard", "--json", *more)
        assert (1, 1, 2, 0) == (
            ended.code, *(ended.json[name] for name in ("migrated", "failures", "also_standard")),
        )  # fmt: skip
        assert {"malformed"} == {each["code"] for each in ended.json["failed"]}
        assert all("must be whsec_ and the base64 of 24 to 64" in each["message"] for each in ended.json["failed"])
        assert "whsec_short" not in ended.out + ended.err
    assert (0, 2) == ((rest := await begun.run("migrate-secrets", "--json")).code, rest.json["migrated"])
    schemes = [(await row(begun.stored.pool, each))["scheme"] for each in endpoints]
    assert ["standard", "x-webhook", "x-webhook"] == schemes
    facts = [each["after"] for each in await audited(begun.stored.pool, "t0") if each["action"] == "secret.migrated"]
    assert ["standard"] == [each["scheme"] for each in facts]


async def test_a_failed_row_is_reported_and_the_others_are_migrated(begun: Begun) -> None:
    """Each failure is reported with its endpoint and reason, without a value; all others are migrated; it exits 1."""
    bad = [await insert_plaintext_endpoint(begun, 1, ""), await insert_plaintext_endpoint(begun, 2, "canary" * 50)]
    good = await insert_plaintext_endpoint(begun, 3)
    ended = await begun.run("migrate-secrets", "--json")
    expected = [
        {"tenant_id": each.tenant_id, "endpoint_id": each.endpoint_id, "code": code}
        for each, code in zip(bad, ("conflict", "malformed"), strict=True)
    ]
    failed = sorted(ended.json["failed"], key=lambda each: str(each["tenant_id"]))
    assert expected == [
        {name: value for name, value in each.items() if name not in {"message", "field"}} for each in failed
    ]
    assert (1, shape(migrated=1, failures=2, failed=failed)) == (ended.code, shape() | ended.json | {"failed": failed})
    assert all(f"hookseal: {each.tenant_id} {each.endpoint_id}: " in ended.err for each in bad)
    assert "canary" not in ended.out + ended.err
    assert (await row(begun.stored.pool, good))["secret_ref"] is not None

    dry_run = await begun.run("migrate-secrets", "--dry-run", "--json")
    assert (1, 1, 2) == (dry_run.code, dry_run.json["present"], dry_run.json["failures"])
    # Once these rows are repaired, a repeat migrates them.
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET secret = 'repaired' WHERE secret_ref IS NULL")
    assert (0, shape(migrated=2, present=1)) == (
        (again := await begun.run("migrate-secrets", "--json")).code,
        again.json,
    )


async def test_unsealed_plaintext_prevents_the_end(begun: Begun) -> None:
    """While one plaintext is none of its endpoint's secrets, no column is emptied and plaintext is not forbidden."""
    endpoints = [await insert_plaintext_endpoint(begun, number) for number in range(2)]
    await begun.run("migrate-secrets")
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET secret = 'later' WHERE tenant_id = 't1'")
    ended = await begun.run("migrate-secrets", "--finalize", "--json")

    assert (1, "there", 0, 1) == (ended.code, *(ended.json[name] for name in ("column", "emptied", "failures")))
    assert endpoints[1].endpoint_id == ended.json["failed"][0]["endpoint_id"]
    assert 2 == await begun.stored.pool.fetchval("SELECT count(secret) FROM hookseal.endpoints")


async def test_many_rows_are_counted_in_batches(begun: Begun) -> None:
    """More rows than a page and than the answer lists are all counted, with progress, and every batch is emptied."""
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " SELECT 't' || n % 3, gen_random_uuid(), 'https://receiver.example/' || n, '{*}',"
        " CASE WHEN n <= 1001 THEN '' ELSE 'secret ' || n END FROM generate_series(1, 1251) AS n"
    )
    ended = await begun.run("migrate-secrets", "--json")
    assert (1, 250, 1001, 100) == (
        ended.code,
        ended.json["migrated"],
        ended.json["failures"],
        len(ended.json["failed"]),
    )
    assert "hookseal: 1000 of 1251 endpoints: " in ended.err
    assert "hookseal: 1251 of 1251 endpoints: 250 migrated, 1001 failed\n" in ended.err
    await begun.stored.pool.execute("DELETE FROM hookseal.endpoints WHERE secret = ''")
    final = await begun.run("migrate-secrets", "--finalize", "--json")
    assert (0, shape(finalize=True, column="forbidden", present=250, emptied=250)) == (final.code, final.json)
    emptied = [
        each["after"]["endpoints"]
        for each in await audited(begun.stored.pool, "_system")
        if "emptied" in each["action"]
    ]
    assert [50, 100, 100] == sorted(emptied)


async def test_a_broken_audit_log_keeps_its_tenants_plaintext(begun: Begun) -> None:
    """If a tenant's audit log refuses rows, its plaintext stays; the other tenants are migrated."""
    endpoints = [await insert_plaintext_endpoint(begun, number) for number in range(2)]
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.audit_heads VALUES ('t0', 0, '\\x00');"
        " INSERT INTO hookseal.audit_log"
        " (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)"
        " VALUES ('t0', 1, now(), '', '', '', '', '', '')"
    )
    ended = await begun.run("migrate-secrets", "--json")
    [failed] = ended.json["failed"]
    assert (1, 1, endpoints[0].endpoint_id, "refused") == (
        ended.code,
        ended.json["migrated"],
        failed["endpoint_id"],
        failed["code"],
    )
    assert "hookseal audit verify" in failed["message"]
    stored = await row(begun.stored.pool, endpoints[0])
    assert (None, SECRET) == (stored["secret_ref"], stored["secret"])


async def test_concurrent_migrations_share_the_rows(begun: Begun) -> None:
    """Two operators who migrate at the same time share the rows, and neither fails."""
    for number in range(40):
        await insert_plaintext_endpoint(begun, number)
    both = await asyncio.gather(*(begun.run("migrate-secrets", "--json") for _ in range(2)))

    assert [0, 0] == [each.code for each in both]
    assert 40 == sum(each.json["migrated"] for each in both)
    assert 40 == await begun.stored.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE action = 'secret.migrated'"
    )


async def test_a_migrated_endpoint_keeps_its_id(begun: Begun) -> None:
    """A migrated endpoint keeps its UUID of any version, and every command accepts it."""
    endpoint = await insert_plaintext_endpoint(begun, 1)
    await begun.run("migrate-secrets")
    of = ("--tenant", endpoint.tenant_id, "--endpoint", endpoint.endpoint_id, "--json")
    assert "4" == endpoint.endpoint_id[14]
    revealed = await begun.run("secret", "reveal", *of, "--print-secret")
    assert SECRET == revealed.json["secret"]
    rotated = await begun.run("endpoint", "rotate", *of, "--no-wait")
    assert (0, 2) == (rotated.code, rotated.json["generation"])
    assert (await begun.run("endpoint", "show", *of)).json["has_plaintext"]


@pytest.mark.req("OPS-10")
@pytest.mark.parametrize("group", ["hookseal_worker", "hookseal_readonly"])
async def test_other_roles_are_refused_once(begun: Begun, group: str) -> None:
    """Worker and read-only roles are refused once (5), not row by row, and nothing is changed."""
    for number in range(3):
        await insert_plaintext_endpoint(begun, number)
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"], group) as (_, url):
        for more in ((), ("--dry-run",), ("--finalize",)):
            ended = await begun.run("migrate-secrets", "--json", *more, DATABASE_URL=url)
            assert (5, "secret_denied") == (ended.code, ended.json["error"]["code"])
            assert "hookseal_operator" in ended.json["error"]["message"]
    assert [None] * 3 == await refs(begun)


async def test_a_lost_session_is_an_outage(begun: Begun) -> None:
    """A session that PostgreSQL ends is an outage (69), not a failed row; a repeat continues."""
    await insert_plaintext_endpoint(begun, 1)
    await begun.stored.pool.execute(
        "CREATE FUNCTION public.end_it() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        " CREATE TRIGGER ends BEFORE UPDATE ON hookseal.endpoints FOR EACH ROW EXECUTE FUNCTION public.end_it()"
    )
    ended = await begun.run("migrate-secrets", "--json")
    assert (69, "unavailable") == (ended.code, ended.json["error"]["code"].replace("secret_", ""))
    await begun.stored.pool.execute("DROP TRIGGER ends ON hookseal.endpoints")
    assert 1 == (await begun.run("migrate-secrets", "--json")).json["migrated"]


async def test_a_failing_trigger_fails_only_its_row(begun: Begun) -> None:
    """A failing trigger of the older system is reported by its class only, and other rows are migrated."""
    endpoints = [await insert_plaintext_endpoint(begun, number) for number in range(2)]
    await begun.stored.pool.execute(
        "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'no: %', NEW.secret; END $$;"
        " CREATE TRIGGER no BEFORE UPDATE ON hookseal.endpoints FOR EACH ROW WHEN (NEW.tenant_id = 't0')"
        " EXECUTE FUNCTION public.no()"
    )
    ended = await begun.run("migrate-secrets", "--json", HOOKSEAL_LOG_LEVEL="debug")
    [failed] = ended.json["failed"]
    assert (endpoints[0].endpoint_id, 1) == (failed["endpoint_id"], ended.json["migrated"])
    assert "RaiseError" in failed["message"]
    assert SECRET[:20] not in ended.out + ended.err


async def test_without_plaintext_there_is_nothing_to_migrate(begun: Begun) -> None:
    """An installation without an older system has nothing to migrate, and can be finalized at once."""
    await begun.stored.endpoint()
    none = await begun.run("migrate-secrets", "--json")
    assert (0, shape(), "hookseal: 0 of 0 endpoints: nothing to do\n") == (none.code, none.json, none.err)
    final = await begun.run("migrate-secrets", "--finalize", "--json")
    assert (0, shape(finalize=True, column="forbidden")) == (final.code, final.json)


@pytest.mark.req("OPS-04", part="errors")
async def test_a_migration_needs_a_database_and_a_durable_provider(begun: Begun) -> None:
    """Without an answer of the database it exits 69; the provider `dev`, whose secrets are not durable, exits 5."""
    assert 69 == (await hookseal("migrate-secrets", "--json", **NOWHERE)).code
    dev = begun.settings | {"SECRETS_PROVIDER": "dev", "SECRETS_MASTER_KEY": ""}
    del dev["SECRETS_MASTER_KEY"]
    ended = await hookseal("migrate-secrets", "--json", **dev)
    assert (5, "refused") == (ended.code, ended.json["error"]["code"])


async def test_help_has_an_example() -> None:
    """The help has an example and says when it exits 1."""
    out = (await hookseal("migrate-secrets", "--help")).out
    assert all(word in out for word in ("Example: hookseal migrate-secrets", "--finalize", "Exit 1"))
