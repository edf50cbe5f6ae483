"""The schemes that are taken, the preferred one first."""

from typing import Final

from hookseal.ground.wire import Scheme
from hookseal.receiver import standard, x_webhook

SCHEMES: Final = (
    (Scheme.STANDARD, standard.NAMES, standard.signed),
    (Scheme.X_WEBHOOK, x_webhook.NAMES, x_webhook.signed),
)
