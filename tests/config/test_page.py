"""The settings page is written from the table that parses."""

from hookseal.config.names import LATER, OURS
from hookseal.config.page import settings_page


def test_the_page_names_everything() -> None:
    """Every variable of this version and of a later one is on the page."""
    page = settings_page()
    assert [] == [name for name in (*OURS, *LATER) if f"`{name}`" not in page]


def test_a_row() -> None:
    """A row tells name, default, form and meaning."""
    rows = settings_page().splitlines()
    assert any(row.startswith("| `HOOKSEAL_HEALTH_PORT` | `8080` | a whole number from 0 to 65535 |") for row in rows)
    assert any(row.startswith("| `DATABASE_URL` | required |") for row in rows)
    assert any(row.startswith("| `SECRETS_MASTER_KEY` | required with `db` |") for row in rows)
