"""docs/guide/for-your-customers.md: what it says of requests is true, and it has no word of an operator."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from hookseal.pages.views.verifying import LANGUAGES
from hookseal.receiver import verify
from tests.guides.reader import ROOT, blocks
from tests.pages.test_words import OF_AN_OPERATOR

pytestmark = [pytest.mark.req("OPS-06"), pytest.mark.pure]

PAGE = "docs/guide/for-your-customers.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8").partition("\n---\n")[2]
_UNITS = {"second": "seconds", "minute": "minutes", "hour": "hours"}


def test_the_request_verifies_with_the_secret() -> None:
    """The example has the signature that its receiver computes."""
    [request] = blocks(PAGE, "http")
    head, _, body = request.strip().partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    [secret] = re.findall(r"`(whsec_\S+)`", TEXT)

    verify(body.encode(), headers, [secret], now=int(headers["webhook-timestamp"]))
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert headers["webhook-signature"] == Webhook(secret).sign(headers["webhook-id"], at, body)


def test_the_times_are_those_of_the_product() -> None:
    """The waits are the default schedule, in words."""
    [said] = re.findall(r"send the request again: after (.+?),\s+each", TEXT, re.DOTALL)
    waits = [
        timedelta(**{_UNITS[unit]: int(number)}) for number, unit in re.findall(r"(\d+)\s+(second|minute|hour)s?", said)
    ]

    assert [timedelta(seconds=each) for each in DEFAULT_RETRY_SCHEDULE] == waits
    assert f"{len(DEFAULT_RETRY_SCHEDULE) + 1} attempts" in TEXT


def test_the_code_is_that_of_the_guide() -> None:
    code = {each.code.strip() for each in LANGUAGES.values()}

    assert [] == [
        each for language in ("python", "javascript") for each in blocks(PAGE, language) if each.strip() not in code
    ]


def test_it_has_no_word_of_an_operator() -> None:
    assert [] == OF_AN_OPERATOR.findall(TEXT)
    assert [] == re.findall(r"(?i)\bhookseal\b|\bworker|\bbreaker|dead letter|\barq\b", TEXT)
