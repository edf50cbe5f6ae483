"""The settings page is written from the table that parses."""

from hookseal.config.names import KNOWN
from hookseal.config.page import settings_page


def test_the_page_has_every_variable() -> None:
    """The page has every variable."""
    page = settings_page()
    assert [] == [name for name in KNOWN if f"`{name}`" not in page]


def test_a_row_has_name_default_form_and_meaning() -> None:
    """A row has name, default, form and meaning."""
    rows = settings_page().splitlines()
    assert any(row.startswith("| `HOOKSEAL_HEALTH_PORT` | `8080` | a whole number from 0 to 65535 |") for row in rows)
    assert any(row.startswith("| `DATABASE_URL` | required |") for row in rows)
    key = "| `SECRETS_MASTER_KEY` | required with `db`, or `SECRETS_MASTER_KEY_WRAPPED` |"
    assert any(row.startswith(key) for row in rows)
