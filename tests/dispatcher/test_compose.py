"""The request of an attempt."""

import pytest

from hookseal.dispatcher.core.model import Target
from hookseal.dispatcher.core.prepare import compose
from hookseal.ground.wire import Scheme
from tests.doubles.claims import CLAIM, DELIVERY, TARGET, claim, overlapping, target
from tests.doubles.signers import EchoSigner

X_WEBHOOK = {
    "x-webhook-timestamp": "1767323045",
    "x-webhook-event": "invoice.paid",
    "x-webhook-delivery-id": DELIVERY,
    "x-tenant-id": "acme",
}
SIGNED_STANDARD = len(f"{DELIVERY}.1767323045.") + len(CLAIM.body)
SIGNED_X_WEBHOOK = len("1767323045.") + len(CLAIM.body)


def signature_headers(found: Target, *signers: EchoSigner) -> dict[str, str]:
    """Return the headers of a request that differ between schemes."""
    request = compose(CLAIM, found, signers, user_agent="u", start_by=1, longest_seconds=20)
    assert CLAIM.body is request.body, "the sent body is not the signed body"
    return {name: value for name, value in request.headers.items() if "webhook-" in name or name == "x-tenant-id"}


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_the_request_has_body_id_time_and_signatures() -> None:
    """The frozen bytes are sent unchanged, with the id, the time of the claim and every signature, in order."""
    request = compose(
        CLAIM,
        TARGET,
        [EchoSigner("new"), EchoSigner("old")],
        user_agent="hookseal/1",
        start_by=1.5,
        longest_seconds=20,
    )

    assert CLAIM.body is request.body
    assert {
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,new/{SIGNED_STANDARD} v1,old/{SIGNED_STANDARD}",
        "content-type": "application/json",
        "user-agent": "hookseal/1",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-hookseal-event-id": "evt_1",
        "x-correlation-id": "corr-1",
    } == request.headers
    assert (TARGET.pointer.url, 1.5, 5.0, "acme") == (
        request.url,
        request.start_by,
        request.timeout_seconds,
        request.tenant_id,
    )


@pytest.mark.req("OPS-03", part="correlation-id")
def test_tracing_headers_are_sent_only_if_given() -> None:
    """Correlation id and traceparent are sent if the producer gave them, and are never invented."""
    traced = compose(
        claim(correlation_id=None, traceparent="00-a-b-01"),
        TARGET,
        [],
        user_agent="u",
        start_by=1,
        longest_seconds=20,
    ).headers

    assert "00-a-b-01" == traced["traceparent"]
    assert "x-correlation-id" not in traced
    assert "traceparent" not in compose(CLAIM, TARGET, [], user_agent="u", start_by=1, longest_seconds=20).headers


def test_no_request_outlasts_the_lease() -> None:
    """A time-out in the row that is longer than the installation allows is reduced to what it allows."""
    request = compose(CLAIM, TARGET, [], user_agent="u", start_by=1, longest_seconds=3.5)

    assert 3.5 == request.timeout_seconds


@pytest.mark.req("DEL-04", part="x-webhook")
def test_x_webhook_has_its_own_headers() -> None:
    """An `x-webhook` endpoint gets the headers of that scheme and the common ones, and none of `standard`."""
    signer = EchoSigner("only", Scheme.X_WEBHOOK)
    request = compose(CLAIM, target(scheme="x-webhook"), [signer], user_agent="u", start_by=1, longest_seconds=20)

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256=only/{SIGNED_X_WEBHOOK}",
        "content-type": "application/json",
        "user-agent": "u",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-hookseal-event-id": "evt_1",
        "x-correlation-id": "corr-1",
    } == request.headers


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(("lead", "plain"), [("previous", "old"), ("current", "new")])
def test_an_x_webhook_overlap_names_both_signatures(lead: str, plain: str) -> None:
    """Each of the two signatures has its own header, and the plain header repeats the one that `lead` names."""
    found = overlapping("x-webhook", "x-webhook", lead=lead)

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256={plain}/{SIGNED_X_WEBHOOK}",
        "x-webhook-signature-current": f"sha256=new/{SIGNED_X_WEBHOOK}",
        "x-webhook-signature-previous": f"sha256=old/{SIGNED_X_WEBHOOK}",
    } == signature_headers(found, EchoSigner("new", Scheme.X_WEBHOOK), EchoSigner("old", Scheme.X_WEBHOOK))


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("lead", ["previous", "current"])
@pytest.mark.parametrize(
    ("current", "previous"), [(Scheme.STANDARD, Scheme.X_WEBHOOK), (Scheme.X_WEBHOOK, Scheme.STANDARD)]
)
def test_an_overlap_of_two_schemes_sends_both(current: Scheme, previous: Scheme, lead: str) -> None:
    """Both sets of headers are sent, each signed once, with the secret of its scheme, whatever `lead` is."""
    refs = {current: "new", previous: "old"}

    assert {
        **X_WEBHOOK,
        "x-webhook-signature": f"sha256={refs[Scheme.X_WEBHOOK]}/{SIGNED_X_WEBHOOK}",
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,{refs[Scheme.STANDARD]}/{SIGNED_STANDARD}",
    } == signature_headers(
        overlapping(current, previous, lead=lead), EchoSigner("new", current), EchoSigner("old", previous)
    )
