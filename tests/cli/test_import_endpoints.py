"""`hookseal import-endpoints` imports endpoints of an older system, with their secrets, from a CSV file, once."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from hookseal.secrets.core.ref import Purpose, SecretRef
from tests.cli.command import Ended, hookseal
from tests.cli.installation import Begun
from tests.doubles.legacy import legacy
from tests.doubles.logbook import audited
from tests.doubles.logins import login

pytestmark = [pytest.mark.req("SEC-12"), pytest.mark.timeout(300)]

OLD_ID = "8a6e0804-2bd0-4672-b79d-d97027f9071a"
SECRET = 'a secret, "of" an older system: \u00e4'


def file(folder: Path, *rows: dict[str, str], mode: int = 0o600) -> str:
    """Return a file with these rows and their columns."""
    names = list(dict.fromkeys(name for each in rows for name in each))
    text = StringIO()
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return raw(folder, text.getvalue().encode(), mode=mode)


def raw(folder: Path, content: bytes, *, mode: int = 0o600) -> str:
    """Return a file with this content."""
    path = folder / "endpoints.csv"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def row(number: int = 1, **cells: str) -> dict[str, str]:
    """Return a row that can be imported, with these cells changed."""
    given = {"tenant_id": "acme", "url": f"https://receiver.example/{number}", "event_types": "*", "secret": SECRET}
    return given | cells


def shape(**changes: Any) -> dict[str, Any]:
    """Return the expected JSON, with these changes."""
    return {"dry_run": False, "added": 0, "present": 0, "failures": 0, "failed": []} | changes


async def imported(begun: Begun, path: str, *more: str, **settings: str) -> Ended:
    """Import the file; no output contains a secret."""
    ended = await begun.run("import-endpoints", "--from-csv", path, "--json", *more, **settings)
    assert SECRET[:12] not in ended.out + ended.err
    assert "canary" not in ended.out + ended.err
    return ended


async def opened(begun: Begun, url: str) -> bytes:
    """Return the sealed secret of the endpoint at that url."""
    ref = await begun.stored.pool.fetchval("SELECT secret_ref FROM hookseal.endpoints WHERE url = $1", url)
    return (await begun.stored.unlocked.store.get(SecretRef.parse(ref), purpose=Purpose.WEBHOOK_SIGNING)).reveal()


async def count(begun: Begun) -> int:
    """Return the number of endpoints."""
    number: int = await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")
    return number


@pytest.mark.req("OPS-10")
async def test_each_row_is_imported_once(begun: Begun, tmp_path: Path) -> None:
    """The operator role can do a dry run, the import and a repeat; each row is sealed and audited once."""
    path = file(tmp_path, row(1), row(2, tenant_id="globex", secret="short"), row(3, endpoint_id=OLD_ID.upper()))
    async with login(begun.stored.pool, begun.settings["DATABASE_URL"], "hookseal_operator") as (_, url):
        as_operator = {"DATABASE_URL": url}
        dry_run = await imported(begun, path, "--dry-run", **as_operator)
        assert (0, shape(dry_run=True, added=3)) == (dry_run.code, dry_run.json)
        assert {f"hookseal: line {line}: would be added" for line in (2, 3, 4)} <= set(dry_run.err.splitlines())
        assert dry_run.err.endswith("hookseal: 3 rows: 3 would be added\n")
        assert 0 == await count(begun)
        done = await imported(begun, path, **as_operator)
        assert (0, shape(added=3), "hookseal: 3 rows: 3 added\n") == (done.code, done.json, done.err)
        again = await imported(begun, path, **as_operator)
        assert (0, shape(present=3)) == (again.code, again.json)

    assert [SECRET.encode(), b"short"] == [await opened(begun, f"https://receiver.example/{n}") for n in (1, 2)]
    of = ("--tenant", "acme", "--endpoint", OLD_ID, "--json")
    shown = (await begun.run("endpoint", "show", *of)).json
    assert ("x-webhook", "hmac", ["*"], False) == tuple(
        shown[name] for name in ("scheme", "algorithm", "event_types", "has_plaintext")
    )
    assert ["endpoint.added"] * 2 == [each["action"] for each in await audited(begun.stored.pool)]
    assert 0 == (await begun.run("audit", "verify")).code


async def test_a_whsec_secret_needs_a_scheme(begun: Begun, tmp_path: Path) -> None:
    """A `whsec_` without a scheme is refused; the scheme of the row takes precedence over `--scheme`."""
    whsec = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    rows = (row(1, secret=whsec), row(2), row(3, secret=whsec, scheme="x-webhook"), row(4, secret=f" {whsec}"))
    ended = await imported(begun, file(tmp_path, *rows))
    assert (1, 2, 2) == (ended.code, ended.json["added"], ended.json["failures"])
    assert [(2, "malformed", "scheme"), (5, "malformed", "scheme")] == [
        (each["line"], each["code"], each["field"])
        for each in sorted(ended.json["failed"], key=lambda each: each["line"])
    ]
    expected = (
        "the secret is a whsec_, and neither its row nor --scheme names the scheme: give standard if the receiver "
        "verifies Standard Webhooks, x-webhook if it uses the whole text as the key"
    )
    assert {expected} == {each["message"] for each in ended.json["failed"]}

    path = file(tmp_path, row(1, secret=whsec), row(3, secret=whsec, scheme="x-webhook"))
    assert (0, shape(added=1, present=1)) == (
        (ended := await imported(begun, path, "--scheme", "standard")).code,
        ended.json,
    )
    other = file(tmp_path, row(5, secret=whsec), row(6, secret=whsec, scheme="standard"))
    assert (0, shape(added=2)) == ((ended := await imported(begun, other, "--scheme", "x-webhook")).code, ended.json)
    found = await begun.stored.pool.fetch("SELECT right(url, 1) AS n, scheme FROM hookseal.endpoints ORDER BY url")
    assert ["1 standard", "2 x-webhook", "3 x-webhook", "5 x-webhook", "6 standard"] == [
        f"{each['n']} {each['scheme']}" for each in found
    ]


async def test_every_column_is_stored(begun: Begun, tmp_path: Path) -> None:
    """Every column of a row is stored; a disabled endpoint is disabled from the beginning."""
    whsec = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    path = file(
        tmp_path,
        row(
            event_types="invoice.* ; invoice.paid user.created;",
            secret=whsec,
            endpoint_id=OLD_ID,
            name="Billing",
            uid="crm-7",
            channels="a; b",
            description="for Jane",
            metadata='{"owner": "Jane, of sales"}',
            scheme="standard",
            algorithm="hmac",
            timeout_ms="1500",
            max_attempts="7",
            backoff_base_seconds="5",
            backoff_cap_seconds="600",
            rotate_every_days="30",
            concurrency="7",
            rate="20/s",
            ordered="yes",
            on_dead_letter="skip",
            enabled="False",
        ),
        row(2, retry_schedule="5s,1m", enabled="TRUE"),
    )
    assert (0, shape(added=2)) == ((ended := await imported(begun, path)).code, ended.json)

    found = await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints WHERE id = $1::text::uuid", OLD_ID)
    assert found is not None
    expected = {
        "name": "Billing",
        "uid": "crm-7",
        "channels": ["a", "b"],
        "description": "for Jane",
        "metadata": '{"owner": "Jane, of sales"}',
        "scheme": "standard",
        "algorithm": "hmac",
        "timeout_ms": 1500,
        "concurrency": 7,
        "rate": 20,
        "ordered": True,
        "on_dead_letter": "skip",
        "max_attempts": 7,
        "backoff_base_seconds": 5,
        "backoff_cap_seconds": 600,
        "rotate_every_days": 30,
        "enabled": False,
        "disabled_reason": "imported as disabled",
        "event_types": ["invoice.*", "invoice.paid", "user.created"],
    }
    assert expected == {name: found[name] for name in expected}
    assert whsec.encode() == await opened(begun, "https://receiver.example/1")
    assert [5, 60] == await begun.stored.pool.fetchval(
        "SELECT retry_schedule FROM hookseal.endpoints WHERE enabled AND url LIKE '%/2'"
    )


@pytest.mark.req("DEL-17")
async def test_order_stays(begun: Begun, tmp_path: Path) -> None:
    """A row for an endpoint that is there changes nothing, and one with another order is refused."""
    assert (0, shape(added=1)) == ((ended := await imported(begun, file(tmp_path, row(ordered="t")))).code, ended.json)
    assert (0, shape(present=1)) == (
        (ended := await imported(begun, file(tmp_path, row(ordered="true")))).code,
        ended.json,
    )
    ended = await imported(begun, file(tmp_path, row()))

    assert (1, "ordered") == (ended.code, ended.json["failed"][0]["field"])
    assert "is ordered, which cannot be changed" in ended.json["failed"][0]["message"]


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"tenant_id": "_system"}, "malformed", "tenant"),
    ({"tenant_id": ""}, "malformed", "tenant_id"),
    ({"url": ""}, "malformed", "url"),
    ({"url": "canary"}, "malformed", "url"),
    ({"url": "http://receiver.example/canary"}, "refused", "url"),
    ({"url": "https://10.0.0.1/canary"}, "refused", "url"),
    ({"url": "https://user:canary@receiver.example/"}, "malformed", "url"),
    ({"event_types": "canary/x"}, "malformed", "event_type"),
    ({"event_types": " ; "}, "malformed", "event_types"),
    ({"secret": ""}, "malformed", "secret"),
    ({"secret": "canary" * 50}, "malformed", "secret"),
    ({"secret": "whpk_canary"}, "malformed", "secret"),
    ({"secret": "canary", "scheme": "standard"}, "malformed", "secret"),
    ({"secret": "canary", "scheme": "standard", "algorithm": "ed25519"}, "malformed", "secret"),
    ({"algorithm": "ed25519"}, "malformed", "algorithm"),
    ({"algorithm": "canary"}, "malformed", "algorithm"),
    ({"scheme": "canary"}, "malformed", "scheme"),
    ({"endpoint_id": "canary"}, "malformed", "endpoint"),
    ({"name": "canary\x07"}, "malformed", "name"),
    ({"uid": "the canary"}, "malformed", "uid"),
    ({"channels": "canary/x"}, "malformed", "channels"),
    ({"description": "canary" * 999}, "malformed", "description"),
    ({"metadata": "canary"}, "malformed", "metadata"),
    ({"metadata": '{"canary": 1}'}, "malformed", "metadata"),
    ({"timeout_ms": "canary"}, "malformed", "timeout_ms"),
    ({"timeout_ms": "99"}, "malformed", "timeout_ms"),
    ({"timeout_ms": "20001"}, "malformed", "timeout_ms"),
    ({"timeout_ms": "-5"}, "malformed", "timeout_ms"),
    ({"max_attempts": "1e3"}, "malformed", "max_attempts"),
    ({"max_attempts": "5", "retry_schedule": "5s"}, "malformed", "retry_schedule"),
    ({"retry_schedule": "canary"}, "malformed", "retry_schedule"),
    ({"rotate_every_days": "31"}, "malformed", "rotate_every_days"),
    ({"concurrency": "canary"}, "malformed", "concurrency"),
    ({"rate": "canary"}, "malformed", "rate"),
    ({"enabled": "canary"}, "malformed", "enabled"),
    ({"ordered": "canary"}, "malformed", "ordered"),
    ({"ordered": "true", "on_dead_letter": "canary"}, "malformed", "on_dead_letter"),
    ({"on_dead_letter": "skip"}, "malformed", "on_dead_letter"),
]


async def test_a_wrong_row_is_reported_by_line(begun: Begun, tmp_path: Path) -> None:
    """Each kind of bad cell is reported by line, code and column, without its value; good rows are imported."""
    rows = [row(number, **cells) for number, (cells, _, _) in enumerate(WRONG)]
    path = file(tmp_path, row(100), *rows, row(101))
    for more in (("--dry-run",), ()):
        ended = await imported(begun, path, *more)
        failures = {each["line"]: (each["code"], each["field"]) for each in ended.json["failed"]}
        assert {line: (code, field) for line, (_, code, field) in enumerate(WRONG, 3)} == failures
        assert (1, 2, len(WRONG)) == (ended.code, ended.json["added"], ended.json["failures"])
        assert "hookseal: line 3: tenant must be" in ended.err
    assert 2 == await count(begun)


async def test_an_existing_endpoint_is_not_changed(begun: Begun, tmp_path: Path) -> None:
    """An existing endpoint that differs from its row, or has a plaintext, is not changed."""
    await imported(
        begun, file(tmp_path, row(1), row(2), row(3, secret="canary" * 4), row(5, endpoint_id=OLD_ID), row(7))
    )
    await legacy(begun.stored.pool, "canary", url="https://receiver.example/4")
    before = await begun.stored.pool.fetch("SELECT * FROM hookseal.endpoints ORDER BY id")
    whsec = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    path = file(
        tmp_path,
        row(1, secret="canary of another"),
        row(7, endpoint_id=OLD_ID.replace("8", "9")),
        row(2, secret=whsec, scheme="standard"),
        row(4),
        row(6, endpoint_id=OLD_ID),
        row(3, secret="canary" * 4),
    )
    for more in ((), ("--dry-run",)):
        ended = await imported(begun, path, *more)
        failures = {failed["line"]: failed["field"] for failed in ended.json["failed"]}
        expected = {2: "secret", 3: "endpoint_id", 4: "secret", 5: "url", 6: "endpoint_id"}
        assert (1, 1, {"conflict"}) == (ended.code, ended.json["present"], {f["code"] for f in ended.json["failed"]})
        assert expected == failures
    assert before == await begun.stored.pool.fetch("SELECT * FROM hookseal.endpoints ORDER BY id")


async def test_of_several_endpoints_at_a_url_the_one_with_the_id_is_meant(begun: Begun, tmp_path: Path) -> None:
    path = file(tmp_path, row(1, endpoint_id=OLD_ID))
    await imported(begun, path)
    add = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/1", "--event-type", "*")
    assert 0 == (await begun.run(*add, "--allow-same-url")).code
    assert shape(present=1) == (await imported(begun, path)).json


async def test_a_deleted_endpoints_id_is_refused(begun: Begun, tmp_path: Path) -> None:
    """The id of a deleted endpoint is refused, since its secrets and audit rows still belong to it."""
    await imported(begun, file(tmp_path, row(1, endpoint_id=OLD_ID)))
    await begun.run("endpoint", "delete", "--tenant", "acme", "--endpoint", OLD_ID, "--yes")
    for forget in ("SELECT 1", "DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme'"):
        await begun.stored.pool.execute(forget)
        ended = await imported(begun, file(tmp_path, row(1, endpoint_id=OLD_ID)))
        assert (1, "endpoint_id") == (ended.code, ended.json["failed"][0]["field"])
        assert "was there before" in ended.json["failed"][0]["message"]
    assert 0 == await count(begun)


async def test_the_first_of_equal_rows_counts(begun: Begun, tmp_path: Path) -> None:
    """Of rows with one tenant and url, or uid, or one id, the first counts; each other is reported with both lines."""
    first, other = row(1), row(1, secret="canary of another")
    path = file(
        tmp_path,
        *[row(9, url="canary"), first, other, first, row(1, tenant_id="globex")],
        *[row(2, endpoint_id=OLD_ID, uid="a"), row(3, endpoint_id=OLD_ID.upper(), tenant_id="globex"), row(3)],
        row(4, uid="a"),
    )
    for more in (("--dry-run",), ()):
        ended = await imported(begun, path, *more)
        failures = {each["line"]: (each["code"], each["field"], each["message"]) for each in ended.json["failed"]}
        assert (1, 4, [2, 4, 5, 8, 10]) == (ended.code, ended.json["added"], sorted(failures))
        of_url = ("conflict", "url", "line 3 has the same tenant_id and url: remove one of the two from the file")
        assert (of_url, of_url) == (failures[4], failures[5])
        assert ("conflict", "endpoint_id") == failures[8][:2]
        assert ("conflict", "uid") == failures[10][:2]
        assert "hookseal: line 8: line 7 has the same endpoint_id: " in ended.err
    assert SECRET.encode() == await opened(begun, "https://receiver.example/1")


async def test_another_tenants_id_is_a_conflict(begun: Begun, tmp_path: Path) -> None:
    """An id of another tenant's endpoint is a conflict of that row, and the error does not name the tenant."""
    await imported(begun, file(tmp_path, row(1, tenant_id="globex", endpoint_id=OLD_ID)))
    before = await begun.stored.pool.fetch("SELECT * FROM hookseal.endpoints")
    path = file(tmp_path, row(2, endpoint_id=OLD_ID, secret="of this tenant"))
    for more in (("--dry-run",), ()):
        ended = await imported(begun, path, *more)
        failed = {"line": 2, "code": "conflict", "field": "endpoint_id"}
        assert (1, failed) == (ended.code, {name: ended.json["failed"][0][name] for name in failed})
        assert not [word for word in ("globex", "receiver.example/1") if word in ended.out + ended.err]
    assert before == await begun.stored.pool.fetch("SELECT * FROM hookseal.endpoints")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"acme,https://receiver.example/,*,canary\n",
        b"tenant_id,url,event_types\n",
        b"tenant_id,url,event_types,secret,canary\n",
        b"tenant_id,url,event_types,secret,url\n",
        b"\xff\xfe\x00",
    ],
    ids=["empty", "no header", "a column is missing", "a column is unknown", "a column twice", "no text"],
)
async def test_a_wrong_header_imports_nothing(begun: Begun, tmp_path: Path, content: bytes) -> None:
    """A wrong header exits 2 before anything is imported."""
    ended = await imported(begun, raw(tmp_path, content))

    assert (2, "malformed", "from_csv") == (ended.code, ended.json["error"]["code"], ended.json["error"]["field"])


async def test_rows_before_invalid_csv_are_imported(begun: Begun, tmp_path: Path) -> None:
    """Rows before invalid CSV are imported, none after it, and its line is named."""
    content = b"tenant_id,url,event_types,secret\nacme,https://receiver.example/1,*,abc\n"
    ended = await imported(begun, raw(tmp_path, content + b'acme,https://receiver.example/2,*,"canary"x\n'))

    assert (1, 1, 3) == (ended.code, ended.json["added"], ended.json["failed"][0]["line"])


@pytest.mark.req("SEC-15")
async def test_a_file_that_others_may_read_is_refused(begun: Begun, tmp_path: Path) -> None:
    """A file that others may read is refused (5), an absent one is malformed (2); nothing is imported."""
    ended = await imported(begun, file(tmp_path, row(), mode=0o640))
    assert (5, "from_csv") == (ended.code, ended.json["error"]["field"])
    ended = await imported(begun, str(tmp_path / "none.csv"))
    assert (2, "from_csv") == (ended.code, ended.json["error"]["field"])
    assert 0 == await count(begun)


async def test_rows_are_read_from_standard_input(begun: Begun) -> None:
    """With `-` the rows are read from standard input."""
    content = b"tenant_id,url,event_types,secret\nacme,https://receiver.example/1,*,abc\n"
    ended = await begun.fed(content, "import-endpoints", "--from-csv", "-", "--json")

    assert (0, shape(added=1)) == (ended.code, json.loads(ended.out))


async def test_the_text_has_three_lines(begun: Begun, tmp_path: Path) -> None:
    """Without `--json` three lines report the result."""
    ended = await begun.run("import-endpoints", "--from-csv", file(tmp_path, row()))
    assert (0, "added  1\nexisting  0\nfailed  0\n") == (ended.code, ended.out)


async def test_a_time_out_must_fit_the_drain(begun: Begun, tmp_path: Path) -> None:
    """A time-out longer than a worker's drain allows fails its row, also in a dry run."""
    path = file(tmp_path, row(timeout_ms="15000"))
    for more in (("--dry-run",), ()):
        ended = await imported(begun, path, *more, HOOKSEAL_DRAIN_SECONDS="11", HOOKSEAL_LEASE_SECONDS="30")
        assert (1, "refused") == (ended.code, ended.json["failed"][0]["code"])


async def test_help_names_the_columns() -> None:
    """The help names every column and has an example."""
    out = (await hookseal("import-endpoints", "--help")).out
    columns = "tenant_id url event_types secret endpoint_id name uid description metadata scheme algorithm timeout_ms"
    assert all(
        word in out for word in (*columns.split(), "max_attempts", "enabled", "Example: hookseal import-endpoints")
    )
