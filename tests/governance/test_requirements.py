"""Reading `docs/requirements.md`."""

import pytest

from tools.governance.requirements import Requirement, Status, UnreadableRequirements, parse

pytestmark = pytest.mark.req("OPS-07", part="first-form")


def test_every_row_is_read() -> None:
    """Each row has an id, a status and the parts of a partial one; other tables are ignored."""
    page = """
| status | means |
|---|---|
| `planned` | later |

| id | status | must hold | from |
|---|---|---|---|
| SEC-01 | partial: dev, db | a store | seed |
| SEC-02 | claimed | a `ref` | seed |

| id | status | must hold |
|---|---|---|
| PERF-10 | planned | fast |
"""

    assert (
        Requirement(id="SEC-01", status=Status.PARTIAL, parts=("dev", "db")),
        Requirement(id="SEC-02", status=Status.CLAIMED),
        Requirement(id="PERF-10", status=Status.PLANNED),
    ) == parse(page)


@pytest.mark.parametrize("status", ["", "done", "partial", "partial:", "partial: Dev", "partial: a,b", "claimed: a"])
def test_a_status_of_another_form_is_refused(status: str) -> None:
    """A status that is not one of the three forms is refused with its line and id."""
    with pytest.raises(UnreadableRequirements, match=r"^line 1: SEC-01 must be"):
        parse(f"| SEC-01 | {status} | text | seed |")


def test_a_repeated_id_is_refused() -> None:
    """The same id in two rows is refused."""
    with pytest.raises(UnreadableRequirements, match=r"^SEC-01 is in more than one row$"):
        parse("| SEC-01 | planned | x |\n| SEC-01 | claimed | x |")


def test_a_page_without_rows_is_refused() -> None:
    """A page without a row is refused, since it would require nothing."""
    with pytest.raises(UnreadableRequirements, match="no row of the form"):
        parse("# Requirements\n")
