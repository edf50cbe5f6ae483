"""The settings of the HTTP API."""

import pytest

from hookseal.config.load import NOTHING, load
from hookseal.config.producer import admin_settings
from hookseal.errors import ConfigError

DATABASE = {"DATABASE_URL": "postgresql://localhost/app"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://webhooks.example", "https://webhooks.example"),
        ("https://webhooks.example/", "https://webhooks.example"),
        ("https://webhooks.example:8443/a/portal/", "https://webhooks.example:8443/a/portal"),
    ],
)
def test_the_address_of_the_pages_has_no_slash_at_its_end(text: str, address: str) -> None:
    """It is read by every process with an Admin, because that makes the links."""
    environ = {"HOOKSEAL_PORTAL_URL": text}
    assert [address, address] == [
        load({**environ}, needs=NOTHING).api.portal_url,
        admin_settings(environ=DATABASE | environ).api.portal_url,
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("webhooks.example", "ftp://webhooks.example", "https://", "https://a.example?x=1", "https://a.example/#x"),
        *("https://u:p@a.example", "https://a.example/a b", "https://a.example//", "https://a.example/%2e"),
        "http://webhooks.example",
    ],
)
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOOKSEAL_PORTAL_URL"):
        load({"HOOKSEAL_PORTAL_URL": text}, needs=NOTHING)


def test_the_pages_of_a_developer_need_no_encryption() -> None:
    environ = {"HOOKSEAL_PORTAL_URL": "http://localhost:8071/portal", "HOOKSEAL_ENV": "development"}
    assert environ["HOOKSEAL_PORTAL_URL"] == load({**environ}, needs=NOTHING).api.portal_url


def test_the_rate_of_a_token_is_bounded() -> None:
    assert [2_000, 5] == [load(each, needs=NOTHING).api.rate for each in ({}, {"HOOKSEAL_API_RATE": "5"})]
    for text in ("0", "1000001", "x", "-1"):
        with pytest.raises(ConfigError, match="HOOKSEAL_API_RATE"):
            load({"HOOKSEAL_API_RATE": text}, needs=NOTHING)
