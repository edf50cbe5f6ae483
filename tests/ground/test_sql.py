"""Statements are read by name."""

from hookseal.ground.sql import statements


def test_statements_by_name() -> None:
    """Each statement is what stands under its name, without the name."""
    found = statements("hookseal.dispatcher", "publish.sql")

    assert {"publish", "publish_raw"} == set(found)
    assert found["publish"].startswith("WITH published")
    assert "-- name" not in found["publish_raw"]
