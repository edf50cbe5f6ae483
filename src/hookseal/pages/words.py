"""What the pages say: how things stand, what is wrong with a receiver, what to do. Pure.

What is not said to be for an operator is in words of a customer.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from hookseal.api.problems import Problem, of_error
from hookseal.errors import Conflict, HooksealError, Malformed, Refused, SecretDenied


@dataclass(frozen=True, slots=True)
class Word:
    """A word for a state: `tone` is good, bad, waiting or off; `meaning` says what it is, and `todo` what to do."""

    label: str
    tone: str
    meaning: str
    todo: str = ""


ENDPOINT: Final = {
    "healthy": Word("Working", "good", "The last attempt succeeded, or there was none yet."),
    "failing": Word(
        "Failing",
        "bad",
        "No attempt has succeeded for a while. Failed deliveries are tried again, with growing pauses.",
        "Look at the last failure below, and repair your receiver.",
    ),
    "held": Word(
        "Paused",
        "waiting",
        "Sending is paused. Your deliveries wait, and none of them is lost.",
        "One delivery is tried from time to time; when it succeeds, the others follow.",
    ),
    "stopped": Word(
        "Stopped",
        "bad",
        "Your deliveries are sent in order, and one of them was given up: the others wait behind it.",
        "Repair your receiver, and send that delivery again.",
    ),
    "disabled": Word(
        "Disabled",
        "off",
        "Nothing is sent. New deliveries wait for some days.",
        "Enable the endpoint, and what waits is sent.",
    ),
}

DELIVERY: Final = {
    "pending": Word("Waiting", "waiting", "It will be sent, or tried again."),
    "sending": Word("Sending", "waiting", "It is being sent now."),
    "delivered": Word("Delivered", "good", "Your receiver accepted it with a 2xx status."),
    "dead_letter": Word(
        "Given up",
        "bad",
        "Every attempt failed, so it is not tried any more.",
        "Repair your receiver, and send it again.",
    ),
    "failed": Word(
        "Failed",
        "bad",
        "It cannot be sent, or your receiver wants no more.",
        "See its last attempt, and send it again.",
    ),
    "cancelled": Word(
        "Cancelled", "off", "It was not sent, because its endpoint was disabled for too long or deleted."
    ),
}

# What a waiting delivery waits for.
WAITING: Final = {
    "secret": "Sending to this endpoint is paused: what signs it, or its address, cannot be used now.",
    "endpoint_disabled": "The endpoint is disabled. Enable it, and this is sent.",
    "breaker": "Your receiver failed many times in a row, so only one delivery is tried from time to time.",
    "rate": "Other deliveries of this endpoint are sent first, as its rate allows.",
    "concurrency": "Your receiver has not answered earlier requests yet.",
    "order": "It waits for an earlier delivery: this endpoint gets its deliveries in order.",
}

# The same for an operator, who knows docs/lifecycle.md: what a delivery, or the lane of an endpoint, waits for.
OPERATOR_WAITING: Final = {
    "secret": "a secret, which is refused",
    "endpoint_disabled": "its endpoint, which is disabled",
    "breaker": "the breaker of its endpoint, which is open",
    "rate": "the rate of its endpoint",
    "concurrency": "the concurrency of its endpoint",
    "order": "an earlier delivery of its endpoint",
}

ATTEMPT: Final = {
    "delivered": Word("Accepted", "good", "Your receiver answered with a 2xx status."),
    "gone": Word(
        "Gone",
        "bad",
        "Your receiver answered 410: it wants no more. The endpoint was disabled.",
        "If that was a mistake, let it answer 2xx, and enable the endpoint.",
    ),
    "throttled": Word(
        "Overloaded",
        "bad",
        "Your receiver, or a proxy before it, is overloaded or down (429, 502, 503 or 504).",
        "Answer fast, and do slow work afterwards.",
    ),
    "redirect": Word(
        "Redirect",
        "bad",
        "Your receiver answered with a redirect, which is never followed.",
        "Set the URL of the endpoint to the final address.",
    ),
    "client_error": Word(
        "Refused",
        "bad",
        "Your receiver refused the request (4xx).",
        "Check the path and the verification: the secret, and the raw body.",
    ),
    "server_error": Word(
        "Error", "bad", "Your receiver failed to process the request (5xx).", "Look into the log of your receiver."
    ),
    "unexpected_status": Word(
        "Unexpected status", "bad", "Your receiver answered with a status that is no final answer.", "Answer with 2xx."
    ),
    "timeout": Word(
        "Timed out",
        "bad",
        "No answer came in time. Your receiver may have the request.",
        "Answer with 2xx at once, and do slow work afterwards.",
    ),
    "tls": Word(
        "TLS failed",
        "bad",
        "The certificate is not trusted, or the handshake failed. Nothing was sent.",
        "Check the certificate, its chain and its names.",
    ),
    "dns": Word("No such host", "bad", "The host name could not be found. Nothing was sent.", "Check the host name."),
    "connection": Word(
        "No connection",
        "bad",
        "The connection was refused, or broke before an answer.",
        "Check that your receiver runs, and that a firewall lets us in.",
    ),
    "forbidden_address": Word(
        "Address not allowed",
        "bad",
        "The host has only addresses to which nothing is sent, such as private ones.",
        "Use a public address.",
    ),
    "protocol": Word("Not HTTP", "bad", "What answered does not speak HTTP.", "Check the port."),
    "proxy": Word("Our network", "bad", "Our own network failed. Nothing was sent.", "It is tried again."),
    "invalid_url": Word("Wrong URL", "bad", "The URL names no valid host. Nothing was sent.", "Correct the URL."),
    "unknown": Word(
        "Unknown", "bad", "We lost the answer. Your receiver may have the request.", "Process each webhook-id once."
    ),
}

VERDICT: Final = {
    "switched": Word(
        "Yes", "good", "Your receiver accepted what only the new secret signed, and refused a wrong signature."
    ),
    "not_switched": Word(
        "No", "bad", "Your receiver refused what only the new secret signed.", "Give it the new secret."
    ),
    "does_not_verify": Word(
        "It does not verify",
        "bad",
        "Your receiver accepted a wrong signature as well.",
        "Verify each request: anybody can send to your receiver.",
    ),
    "no_answer": Word(
        "No answer", "waiting", "Your receiver neither accepted nor refused the ping.", "Ask again later."
    ),
}

JOB: Final = {
    "running": Word("Running", "waiting", "Deliveries are being sent again."),
    "done": Word("Done", "good", "All of them are on their way."),
    "cancelled": Word("Cancelled", "off", "The rest is not sent again."),
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

_BLIND: Final = {
    "added": "The endpoint is added. You may not see its secret: ask the support of the product for it.",
    "rotated": "There is a new secret. You may not see it: ask the support of the product for it.",
}
# What was done, after a form; `{n}` is a number.
NOTICES: Final = {
    "added": "The endpoint is added. Show its secret, and give it to your receiver.",
    "saved": "The changes are saved. They hold from the next delivery on.",
    "unchanged": "Nothing was changed.",
    "disabled": "The endpoint is disabled. Its deliveries wait.",
    "enabled": "The endpoint is enabled. Deliveries that waited and are sent now: {n}.",
    "probed": "The oldest delivery that waits is tried now.",
    "deleted": "The endpoint is deleted. Deliveries that were cancelled: {n}.",
    "rotated": "There is a new secret. Show it, and give it to your receiver.",
    "ended": "The old secret does not sign any more.",
    "rolled-back": "The earlier secret is the current one again.",
    "asked": "Your receiver was asked: the answer is below.",
    "sent": "The test event is on its way.",
    "resent": "The delivery is sent again.",
    "nothing": "There is nothing to send again in that time.",
    "stopped": "The rest is not sent again.",
    "skipped": "The endpoint goes on behind that delivery.",
}

# What an endpoint's settings are called.
FIELDS: Final = {
    "url": "URL",
    "description": "Description",
    "event_types": "Event types",
    "header_names": "Headers",
    "change_headers": "Headers",
    "headers": "Headers",
    "event_type": "Event type",
    "since": "Since",
    "until": "Until",
    "overlap_seconds": "Overlap",
}
USED_LINK: Final = "It was used, or is too old. Get another one from the product."
LEFT: Final = "Your session has ended."
OVERTAKEN: Final = (
    "Somebody changed this endpoint since you opened the page, so nothing was done. This is how it is now."
)
SECRET_CHANGED: Final = ("Secret or headers", "as they were", "changed")
_NAMES: Final = {
    "url": "The URL",
    "description": "The description",
    "event type": "An event type",
    "event_types": "The event types",
    "event_type": "The event type",
    "change_headers": "The headers",
    "headers": "The headers",
    "since": "The time",
    "until": "The time",
}
_SECOND_URL: Final = "You already have an endpoint with this URL."
_BEGINNING: Final = re.compile(rf"({'|'.join(sorted(_NAMES, key=len, reverse=True))})(?= )")


def notice(name: str, number: int | None, *, reveals: bool) -> str | None:
    """Return what was done; None for any other name. Who may not reveal is not asked to show a secret."""
    text = NOTICES.get(name) if reveals or name not in _BLIND else _BLIND[name]
    return None if text is None else text.format(n=0 if number is None else number)


def said_of(error: HooksealError, fields: Collection[str]) -> dict[str, str]:
    """Return what to say beside the field that the error names. Raises the error if it names none of these."""
    field = error.field
    if field is None or field not in fields or not isinstance(error, Malformed | Refused | Conflict):
        raise error
    if isinstance(error, Conflict) and field == "url":
        return {field: _SECOND_URL}
    return {field: sentence(of_error(error, ("body", field)).detail, field)}


def sentence(detail: str, field: str | None = None) -> str:
    """Return a message as a sentence, with the words of a customer for what it begins with."""
    text = _BEGINNING.sub(lambda found: _NAMES[found[1]], detail, count=1) if _BEGINNING.match(detail) else detail
    if text.startswith("must ") and field is not None:
        text = f"{FIELDS.get(field, field)} {text}"
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


# The title and the text of a page for a request that cannot be done.
_PROBLEMS: Final = {
    400: ("That cannot be done", "The request is not complete. Go back, and try again."),
    401: ("You are not signed in", "Your session has ended, or has not begun. Open these pages from the product."),
    403: ("You may not do that", "Your access does not allow it. Nothing was changed."),
    404: ("There is no such page", "What you look for does not exist, or does not any more."),
    405: ("That is no address to open", "Go back, and use the buttons of the page."),
    409: ("That cannot be done now", "It contradicts what is stored. Nothing was changed."),
    413: ("That is too much", "The form is too long. Nothing was changed."),
    422: ("Something is not right", "A value is not allowed. Nothing was changed."),
    429: ("Please wait", "These are too many requests at once. Nothing was changed: try again in a moment."),
    500: ("That is our fault", "Something went wrong on our side. We have noted it."),
    503: ("Please try again", "This does not work at the moment. Nothing is lost: try again in a minute."),
}
_CONFLICT: Final = 409
_ASK: Final = "This cannot be done here at the moment. Please ask the support of the product."
_BY_CODE: Final = {
    "other_site": "This form was not sent from these pages, or your browser keeps no cookies. Nothing was changed.",
    "every_tenant": "Your access is not for one customer.",
    "one_tenant": "Your access is for one customer.",
    "no_master_key": _ASK,
    "configuration": _ASK,
    SecretDenied.code: _ASK,
}


def of_problem(problem: Problem) -> tuple[str, str]:
    """Return the title and the text of the page for a problem."""
    title, text = _PROBLEMS.get(problem.status, _PROBLEMS[400 if problem.status < 500 else 500])  # noqa: PLR2004
    if problem.code in _BY_CODE:
        return title, _BY_CODE[problem.code]
    if problem.status == _CONFLICT and problem.code != "conflict":  # a secret that cannot be used, or be read
        return title, _ASK
    if problem.status in {409, 422} and problem.code in {"conflict", "validation", "refused"}:
        return title, sentence(problem.detail)
    return title, text
