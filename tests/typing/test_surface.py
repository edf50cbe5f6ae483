"""Which symbols `make public-types` judges, and what it says about them."""

from typing import Any

import pytest

from tools.public_types import judge, surface

pytestmark = pytest.mark.req("UX-03")


def _symbol(name: str, *, known: bool = True, ambiguous: bool = False) -> dict[str, Any]:
    diagnostics = [] if known else [{"message": f"Type of {name} is unknown\n  more"}]
    return {"name": name, "isTypeKnown": known, "isTypeAmbiguous": ambiguous, "diagnostics": diagnostics}


def test_only_the_public_members_of_the_surface_are_judged() -> None:
    """A type that is not known, or ambiguous, is named if it is public, and counts for nothing if it is not."""
    symbols = [
        _symbol("hookseal.a.Shown"),
        _symbol("hookseal.a.Shown.field", known=False),
        _symbol("hookseal.a.Shown.method", ambiguous=True),
        _symbol("hookseal.a.Shown._private", known=False),
        _symbol("hookseal.a.ShownNot", known=False),
        _symbol("hookseal.b.other", known=False),
    ]
    judged = judge({"typeCompleteness": {"symbols": symbols}}, frozenset({"hookseal.a.Shown"}))

    assert 3 == judged.symbols
    assert judged.problems == (
        "hookseal.a.Shown.field: Type of hookseal.a.Shown.field is unknown",
        "hookseal.a.Shown.method: its type is not known",
    )


def test_what_can_be_reached_from_a_public_name_is_public() -> None:
    """A group of the Admin, a result of it, a part of that, an error and a function; no step and no statement."""
    found = surface()

    assert found >= {
        "hookseal.admin.endpoints.Endpoints.add",
        "hookseal.admin.results.endpoints.Endpoint",
        "hookseal.admin.results.endpoints.FailedAttempt",
        "hookseal.client.publisher.Publisher.publish",
        "hookseal.errors.Conflict",
        "hookseal.producers.sqlalchemy.publish",
        "hookseal.receiver.verification.verify",
        "hookseal.testing.publisher.RecordedEvent",
    }
    assert [] == [name for name in found if name.startswith(("hookseal.operations.", "hookseal.worker."))]
