"""What the pages of an operator say beside those of a customer, to somebody who knows docs/lifecycle.md. Pure."""

from typing import Final

# What a delivery, or the lane of an endpoint, waits for.
WAITING: Final = {
    "secret": "a secret, which is refused",
    "endpoint_disabled": "its endpoint, which is disabled",
    "breaker": "the breaker of its endpoint, which is open",
    "rate": "the rate of its endpoint",
    "concurrency": "the concurrency of its endpoint",
    "order": "an earlier delivery of its endpoint",
}

# Why an operator looks at endpoints.
TROUBLE: Final = {
    "trouble": "in trouble: held, stopped or failing",
    "disabled": "disabled",
    "held": "held",
    "stopped": "stopped",
    "failing": "failing",
    "rotation_due": "rotation by schedule is due",
}
