"""What the headers of an unverified request claim, for investigating a refusal."""

import pytest

from hookseal.ground.wire import Scheme
from hookseal.receiver import UnverifiedHeaders, unverified_headers
from tests.receiver.requests import AT, DELIVERY, KNOWN, standard, svix, x_webhook


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, UnverifiedHeaders()),
        (standard(signature=None), UnverifiedHeaders()),
        (standard(), UnverifiedHeaders(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"], timestamp=AT)),
        (standard(id=None, timestamp="soon"), UnverifiedHeaders(scheme=Scheme.STANDARD)),
        (standard(id="a.b"), UnverifiedHeaders(scheme=Scheme.STANDARD, delivery_id="a.b", timestamp=AT)),
        (standard(timestamp=None), UnverifiedHeaders(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"])),
        (svix(), UnverifiedHeaders(scheme=Scheme.SVIX, delivery_id=KNOWN["id"], timestamp=AT)),
        (x_webhook(), UnverifiedHeaders(scheme=Scheme.X_WEBHOOK, delivery_id=DELIVERY, timestamp=AT)),
        ({"X-Webhook-Signature-Current": "sha256="}, UnverifiedHeaders(scheme=Scheme.X_WEBHOOK)),
        (x_webhook() | standard(), UnverifiedHeaders(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"], timestamp=AT)),
    ],
)
def test_scheme_id_and_time_are_read(headers: dict[str, str], expected: UnverifiedHeaders) -> None:
    """The result is the preferred scheme with a signature, the id as it was sent, and the time if it is well formed."""
    assert expected == unverified_headers(headers)
