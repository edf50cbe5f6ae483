"""The accepted schemes, the preferred one first."""

from typing import Final

from hookseal.ground.wire import Scheme
from hookseal.receiver import standard, x_webhook

SCHEMES: Final = (
    (Scheme.STANDARD, standard.NAMES, standard.match_signature),
    (Scheme.X_WEBHOOK, x_webhook.NAMES, x_webhook.match_signature),
)
