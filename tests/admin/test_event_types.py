"""The catalogue of event types: what is said of each, by name, and its archive."""

import hashlib
from typing import Any

import pytest

from hookseal import Admin
from hookseal.admin import EventType
from hookseal.errors import Conflict, NotFound
from tests.admin.refusals import refused_field
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

JANE = "jane@product.example"
SCHEMAS = '{"1": {"type": "object", "x": 1.10, "x": 100000000000000000000}, "2":{"a":"\u00e9"}}'
pytestmark = pytest.mark.req("DEL-18")


async def added(admin: Admin, name: str = "invoice.paid", **given: Any) -> EventType:
    return await admin.event_types.add(**{"name": name, "description": "An invoice is paid."} | given, actor=JANE)


async def test_a_type_is_kept_as_it_was_given(admin: Admin, installation: Installation) -> None:
    """Byte for byte, and audited for the installation, with a digest of its schemas."""
    made = await added(admin, schemas=SCHEMAS, description="Two\nlines \u00e9", deprecated=True)
    assert ("invoice.paid", "Two\nlines \u00e9", SCHEMAS, True, False) == (
        made.name, made.description, made.schemas, made.deprecated, made.archived,
    )  # fmt: skip
    assert made == await admin.event_types.get(name="invoice.paid")
    row = (await audited(installation.pool, "_system"))[-1]
    digest = hashlib.sha256(SCHEMAS.encode()).hexdigest()
    facts = {"description": "Two\nlines \u00e9", "deprecated": True, "archived": False, "schemas_sha256": digest}
    assert ("event_type.added", "event_type:invoice.paid", None, facts) == (
        row["action"], row["subject"], row["before"], row["after"],
    )  # fmt: skip
    for call in (admin.event_types.get(name="x"), admin.event_types.delete(name="x", actor=JANE)):
        with pytest.raises(NotFound):
            await call


async def test_what_is_said_of_a_type_changes(admin: Admin, installation: Installation) -> None:
    """What is not given stays, and without a difference nothing is written."""
    made = await added(admin, schemas=SCHEMAS)
    changed = await admin.event_types.update(name=made.name, description="", schemas=None, deprecated=True, actor=JANE)
    assert ("", None, True, False, made.created_at) == (
        changed.description, changed.schemas, changed.deprecated, changed.archived, changed.created_at,
    )  # fmt: skip
    assert changed.updated_at > made.updated_at
    assert changed == await admin.event_types.update(name=made.name, deprecated=True, actor=JANE)
    assert changed == await admin.event_types.update(name=made.name, actor=JANE)
    actions = [row["action"] for row in await audited(installation.pool, "_system")]
    assert ["event_type.added", "event_type.updated"] == actions[-2:]


async def test_a_deleted_type_is_archived(admin: Admin) -> None:
    """It is listed for those who ask, and its name may be added again."""
    made = await added(admin, schemas=SCHEMAS)
    with pytest.raises(Conflict):
        await added(admin)
    gone = await admin.event_types.delete(name=made.name, actor=JANE)
    assert (True, SCHEMAS) == (gone.archived, gone.schemas)
    assert gone == await admin.event_types.delete(name=made.name, actor=JANE)
    assert () == (await admin.event_types.list()).items
    assert (gone,) == (await admin.event_types.list(with_archived=True)).items
    again = await added(admin, description="new")
    assert ("new", None, False, made.created_at) == (again.description, again.schemas, again.archived, again.created_at)
    assert (again,) == (await admin.event_types.list()).items
    await admin.event_types.delete(name=made.name, actor=JANE)
    assert not (await admin.event_types.update(name=made.name, archived=False, actor=JANE)).archived


async def test_types_are_listed_by_name(admin: Admin) -> None:
    for name in ("a.b", "c", "a", "b"):
        await added(admin, name)
    await admin.event_types.delete(name="b", actor=JANE)

    async def pages(**given: Any) -> list[list[str]]:
        found, after = [], given.pop("after", None)
        while True:
            page = await admin.event_types.list(limit=2, after=after, **given)
            found.append([item.name for item in page.items])
            if (after := page.next_cursor) is None:
                return found

    assert [["a", "a.b"], ["c"]] == await pages()
    assert [["c", "b"], ["a.b", "a"]] == await pages(descending=True, with_archived=True)
    assert [["c"]] == await pages(after="b")


async def test_a_malformed_type_is_refused_by_name(admin: Admin) -> None:
    deep = '{"1":{"a":' + "[" * 30_000 + "]" * 30_000 + "}}"
    schemas: list[Any] = [
        "",
        "[]",
        "{",
        '{"1": 1}',
        '{"": {}}',
        '{"1": {"a": NaN}}',
        deep,
        "\udcff",
        b"{}",
        "{}" + " " * 65_535,
    ]
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"name": name}, "name") for name in ("", "a..b", "a.*", "a b", "a" * 129, 5)),
        *(({"description": text}, "description") for text in ("a" * 4_097, "\0", "\udcff", None)),
        *(({"schemas": text}, "schemas") for text in schemas),
        ({"deprecated": "yes"}, "deprecated"),
        ({"archived": None}, "archived"),
    ]
    assert cases == [(given, await refused_field(added(admin, **given))) for given, _ in cases]
    lists: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"after": "a b"}, "after"),
        ({"descending": 1}, "descending"),
        ({"with_archived": "x"}, "with_archived"),
    ]
    assert lists == [(given, await refused_field(admin.event_types.list(**given))) for given, _ in lists]
    assert () == (await admin.event_types.list(with_archived=True)).items
