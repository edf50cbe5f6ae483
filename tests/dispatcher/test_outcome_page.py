"""The page of outcomes is generated from the table that classifies answers."""

import pytest

from hookseal.dispatcher.core.model import Outcome
from hookseal.dispatcher.outcome_page import outcomes_page

pytestmark = pytest.mark.req("DEL-05", part="each-delivery")


def test_every_outcome_has_one_row() -> None:
    """Each outcome has one row, with four non-empty cells."""
    rows = [line for line in outcomes_page().splitlines() if line.startswith("| `")]

    assert sorted(f"`{outcome}`" for outcome in Outcome) == sorted(
        row.split(" | ")[0].removeprefix("| ") for row in rows
    )
    assert {4} == {len([cell for cell in row.strip("| ").split(" | ") if cell]) for row in rows}


@pytest.mark.parametrize(
    "start",
    [
        "| `delivered` | 2xx | `delivered` |",
        "| `gone` | 410 | `failed`; the endpoint is disabled until an operator enables it |",
        "| `throttled` | 429, 502, 503, 504 | tried again |",
        "| `redirect` | 3xx | tried again |",
        "| `unexpected_status` | any other status | tried again |",
        "| `timeout` | no status | tried again |",
        "| `invalid_url` | no status | `failed` |",
        "| `unknown` | no answer on record | tried again |",
    ],
)
def test_a_row_states_outcome_condition_and_consequence(start: str) -> None:
    """A row states the outcome, when it applies, and what follows."""
    assert 1 == sum(line.startswith(start) for line in outcomes_page().splitlines())


def test_the_page_states_jitter_and_longest_retry_after() -> None:
    """The page states the jitter and the longest accepted `Retry-After`."""
    page = outcomes_page()

    assert "by up to 25%" in page
    assert "More than 86,400 seconds count as" in page
