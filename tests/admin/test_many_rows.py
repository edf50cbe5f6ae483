"""An Admin changes many rows: it imports endpoints, migrates plaintext secrets, and moves secrets to a provider."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import FailedEndpoint, FailedRow, ImportedEndpoints, ImportRow, MigratedSecrets, MovedSecrets
from hookseal.errors import Conflict, Malformed, Refused
from tests.admin.refusals import refused_field
from tests.doubles.legacy import legacy
from tests.doubles.logbook import audited
from tests.doubles.openbao import ROOT_TOKEN, openbao
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("DEL-18"), pytest.mark.timeout(300)]

JANE = "jane@product.example"
SECRET = "canary of an older system"
WHSEC = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_ID = "8a6e0804-2bd0-4672-b79d-d97027f9071a"


def row(line: int, **values: Any) -> ImportRow:
    """Return a row that can be imported, with these values changed."""
    given = {"tenant_id": "acme", "url": f"https://receiver.example/{line}", "event_types": ["*"], "secret": SECRET}
    return ImportRow(line=line, values=given | values)


@pytest.mark.req("SEC-12")
async def test_rows_are_imported_once(admin: Admin, installation: Installation) -> None:
    """A row has arguments of `add`, an id and whether it is enabled; a repeat changes nothing, as does a dry run."""
    older: dict[str, Any] = {"endpoint_id": OLD_ID, "scheme": "x-webhook", "enabled": False}
    rows = [
        row(2, **older, timeout_ms=1_500, name=None, retry_schedule=[5, 60]),
        row(3, secret=WHSEC.encode()),
    ]
    how: dict[str, Any] = {"rows": rows, "actor": JANE, "scheme": "standard"}
    lines: list[str] = []
    previewed = await admin.endpoints.import_rows(**how, dry_run=True, report=lines.append)
    assert () == (await admin.endpoints.list(tenant_id="acme")).items
    done = await admin.endpoints.import_rows(**how)
    again = await admin.endpoints.import_rows(**how)

    empty: dict[str, Any] = {"dry_run": False, "added": 0, "present": 0, "failures": 0, "failed": ()}
    assert ImportedEndpoints(**empty | {"dry_run": True, "added": 2}) == previewed
    assert {"line 2: would be added", "line 3: would be added", "2 rows: 2 would be added"} == set(lines)
    assert (ImportedEndpoints(**empty | {"added": 2}), ImportedEndpoints(**empty | {"present": 2})) == (done, again)
    found = await admin.endpoints.get(tenant_id="acme", endpoint_id=OLD_ID)
    assert (False, 1_500, (5, 60), "x-webhook") == (
        found.enabled, found.timeout_ms, found.retry_schedule, found.scheme
    )  # fmt: skip
    revealed = await admin.secrets.reveal(tenant_id="acme", endpoint_id=OLD_ID, actor=JANE)
    assert revealed.secret is not None
    assert SECRET.encode() == revealed.secret.reveal()
    assert {JANE} == {each["who"] for each in await audited(installation.pool)}


async def test_a_failed_row_names_its_value(admin: Admin) -> None:
    """Each wrong row is in the result by its line, with the argument at fault and never its value."""
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"tenant_id": "_operator"}, "malformed", "tenant_id"),
        ({"tenant_id": 5}, "malformed", "tenant_id"),
        ({"url": None}, "malformed", "url"),
        ({"url": "https://user:canary@receiver.example/"}, "malformed", "url"),
        ({"event_types": ["canary/x"]}, "malformed", "event_types"),
        ({"event_types": []}, "malformed", "event_types"),
        ({"timeout_ms": "canary"}, "malformed", "timeout_ms"),
        ({"headers": {"x-a": "canary"}}, "malformed", "headers"),
        ({"ordered": "canary"}, "malformed", "ordered"),
        ({"on_dead_letter": "skip"}, "malformed", "on_dead_letter"),
        ({"secret": 5}, "malformed", "secret"),
        ({"secret": WHSEC}, "malformed", "scheme"),
        ({"endpoint_id": "canary"}, "malformed", "endpoint_id"),
        ({"enabled": "canary"}, "malformed", "enabled"),
    ]
    rows = [row(line, **values) for line, (values, _, _) in enumerate(wrong)]
    lines: list[str] = []
    unread = ImportRow(line=99, values={}, problem=Conflict("it cannot be read", field="file"))
    found = await admin.endpoints.import_rows(rows=[*rows, unread, row(100)], actor=JANE, report=lines.append)

    assert (1, len(wrong) + 1) == (found.added, found.failures)
    failed = {each.line: (each.code, each.field) for each in found.failed}
    expected = {line: (code, field) for line, (_, code, field) in enumerate(wrong)}
    assert expected | {99: ("conflict", "file")} == failed
    assert FailedRow(line=99, code="conflict", message="it cannot be read", field="file") in found.failed
    assert "line 99: it cannot be read" in lines
    assert "canary" not in f"{lines}{found}{rows}"


async def test_a_wrong_call_changes_nothing(admin: Admin) -> None:
    """A wrong argument is named, and so is an item that is no row."""
    calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("actor", lambda: admin.endpoints.import_rows(rows=[row(2)], actor="")),
        ("scheme", lambda: admin.endpoints.import_rows(rows=[row(2)], actor=JANE, scheme="canary")),  # type: ignore[arg-type]
        ("dry_run", lambda: admin.endpoints.import_rows(rows=[row(2)], actor=JANE, dry_run="no")),  # type: ignore[arg-type]
        ("rows", lambda: admin.endpoints.import_rows(rows=[{"url": "canary"}], actor=JANE)),  # type: ignore[list-item]
        ("to", lambda: admin.secrets.move(to="dev", actor=JANE)),  # type: ignore[arg-type]
        ("tenant_id", lambda: admin.secrets.move(to="db", tenant_id="*", actor=JANE)),
        ("actor", lambda: admin.secrets.move(to="db", actor="")),
        ("scheme", lambda: admin.secrets.migrate(scheme="canary", actor=JANE)),  # type: ignore[arg-type]
        ("finalize", lambda: admin.secrets.migrate(finalize="no", actor=JANE)),  # type: ignore[arg-type]
    ]
    assert [field for field, _ in calls] == [await refused_field(call()) for _, call in calls]
    assert () == (await admin.endpoints.list(tenant_id="*")).items


@pytest.mark.req("SEC-12")
async def test_plaintext_is_migrated_and_forbidden(admin: Admin, installation: Installation) -> None:
    """The plaintext is sealed, the error names the argument, and with `finalize` PostgreSQL refuses plaintext."""
    bad = await legacy(installation.pool, "", url="https://receiver.example/1")
    await legacy(installation.pool, SECRET, url="https://receiver.example/2")
    with pytest.raises(Refused, match=r"^2 endpoints have a plaintext secret that is not sealed$") as early:
        await admin.secrets.migrate(finalize=True, actor=JANE)
    done = await admin.secrets.migrate(actor=JANE)
    await installation.pool.execute("DELETE FROM hookseal.endpoints WHERE secret_ref IS NULL")
    final = await admin.secrets.migrate(finalize=True, actor=JANE)

    assert "run `hookseal migrate-secrets` first" in (early.value.advice or "")
    whole: dict[str, Any] = {
        "dry_run": False, "finalize": False, "scheme": "x-webhook", "column": "there", "migrated": 1, "present": 0,
        "also_standard": 0, "emptied": 0, "failures": 1, "finalized": False,
    }  # fmt: skip
    failed = FailedEndpoint(
        tenant_id="acme",
        endpoint_id=bad.endpoint_id,
        code="conflict",
        message="the plaintext is empty: give the endpoint a secret, or empty the column (NULL)",
        field="secret",
    )
    assert MigratedSecrets(**whole, failed=(failed,)) == done
    changed = {"finalize": True, "column": "forbidden", "migrated": 0, "present": 1, "emptied": 1, "failures": 0}
    assert MigratedSecrets(**whole | changed | {"finalized": True}, failed=()) == final


@pytest.mark.req("SEC-01", part="move")
async def test_secrets_move_while_other_changes_are_made(installation: Installation, environ: dict[str, str]) -> None:
    """A change at a store outside needs a second connection; with two moves and others at once each gets one."""
    for number in range(12):
        await installation.endpoint(f"t{number % 3}", url=f"https://receiver.example/{number}")
    async with openbao() as server:
        outside = {"SECRETS_PROVIDER": "openbao", "SECRETS_ALSO_READ": "openbao", "BAO_ADDR": server.url}
        async with Admin.connect(environ=environ | outside | {"BAO_TOKEN": ROOT_TOKEN}) as admin:
            one, rest, *others = await asyncio.gather(
                admin.secrets.move(to="openbao", tenant_id="t1", actor=JANE),
                admin.secrets.move(to="openbao", actor=JANE),
                *(
                    admin.endpoints.add(
                        tenant_id="acme", url=f"https://receiver.example/{number}", event_types=["*"], actor=JANE
                    )
                    for number in range(12)
                ),
            )

    own = ("openbao:_system:integrity:1", "openbao:_system:sentinel:1")
    empty: dict[str, Any] = {"to": "openbao", "dry_run": False, "gone": 0, "failures": 0, "failed": ()}
    assert isinstance(one, MovedSecrets)
    assert isinstance(rest, MovedSecrets)
    assert MovedSecrets(**empty, moved=4, present=0, own=()) == one
    assert (8, own, 0) == (rest.moved, rest.own, rest.failures)
    assert 12 == len(others)


async def test_a_provider_that_is_not_used_is_refused(admin: Admin) -> None:
    """The message names the provider, and only the advice names variables."""
    with pytest.raises(Refused, match=r"^this process does not use the provider openbao$") as caught:
        await admin.secrets.move(to="openbao", actor=JANE)
    assert ("to", True) == (caught.value.field, "SECRETS_ALSO_READ=openbao" in (caught.value.advice or ""))


async def test_an_error_of_the_rows_ends_the_import(admin: Admin) -> None:
    """What the caller's own rows raise is raised, and afterwards the next call is made."""

    def rows() -> Any:
        yield row(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await admin.endpoints.import_rows(rows=rows(), actor=JANE)
    with pytest.raises(Malformed):
        await admin.endpoints.import_rows(rows=[None], actor=JANE)  # type: ignore[list-item]
    assert 1 == (await admin.endpoints.import_rows(rows=[row(3)], actor=JANE)).added
