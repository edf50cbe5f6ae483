"""What a request says of itself, for whoever looks into a refusal."""

import pytest

from hookseal.ground.wire import Scheme
from hookseal.receiver import Stated, stated
from tests.receiver.requests import AT, DELIVERY, KNOWN, standard, x_webhook


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Stated()),
        (standard(signature=None), Stated()),
        (standard(), Stated(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"], timestamp=AT)),
        (standard(id=None, timestamp="soon"), Stated(scheme=Scheme.STANDARD)),
        (standard(timestamp=None), Stated(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"])),
        (x_webhook(), Stated(scheme=Scheme.X_WEBHOOK, delivery_id=DELIVERY, timestamp=AT)),
        ({"X-Webhook-Signature-Current": "sha256="}, Stated(scheme=Scheme.X_WEBHOOK)),
        (x_webhook() | standard(), Stated(scheme=Scheme.STANDARD, delivery_id=KNOWN["id"], timestamp=AT)),
    ],
)
def test_what_the_headers_say(headers: dict[str, str], expected: Stated) -> None:
    """The preferred scheme that a signature is there for, with id and time as far as they are of their form."""
    assert expected == stated(headers)
