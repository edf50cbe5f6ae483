"""The request of an attempt."""

import pytest

from hookseal.dispatcher.compose import compose
from tests.doubles.claims import CLAIM, DELIVERY, TARGET, claim
from tests.doubles.signers import EchoSigner


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_request() -> None:
    """The frozen bytes are sent as they are, with id, time of the claim and every signature in order."""
    request = compose(
        CLAIM,
        TARGET,
        [EchoSigner("new"), EchoSigner("old")],
        user_agent="hookseal/1",
        start_within_seconds=1.5,
        longest_seconds=20,
    )
    signed = len(f"{DELIVERY}.1767323045.") + len(CLAIM.body)

    assert CLAIM.body is request.body
    assert {
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,new/{signed} v1,old/{signed}",
        "content-type": "application/json",
        "user-agent": "hookseal/1",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-correlation-id": "corr-1",
    } == request.headers
    assert (TARGET.pointer.url, 1.5, 5.0, "acme") == (
        request.url,
        request.start_within_seconds,
        request.timeout_seconds,
        request.tenant_id,
    )


@pytest.mark.req("OPS-03", part="correlation-id")
def test_tracing_headers_only_if_given() -> None:
    """Correlation id and traceparent are passed on when the producer gave them, and made up never."""
    traced = compose(
        claim(correlation_id=None, traceparent="00-a-b-01"),
        TARGET,
        [],
        user_agent="u",
        start_within_seconds=1,
        longest_seconds=20,
    ).headers

    assert "00-a-b-01" == traced["traceparent"]
    assert "x-correlation-id" not in traced
    assert (
        "traceparent"
        not in compose(CLAIM, TARGET, [], user_agent="u", start_within_seconds=1, longest_seconds=20).headers
    )


def test_no_request_outlasts_the_lease() -> None:
    """A time-out in the row that is longer than this installation allows is cut to what it allows."""
    request = compose(CLAIM, TARGET, [], user_agent="u", start_within_seconds=1, longest_seconds=3.5)

    assert 3.5 == request.timeout_seconds
