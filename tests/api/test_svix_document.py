"""What schemathesis asks, made from Svix's own document: each operation that is served answers as that allows.

`tests/api/svix/openapi.json` has those of its operations (MIT, see the LICENSE beside it; tools/svix_document.py writes
it). A request that is valid there may be refused only by name: `REFUSED` has the members and parameters, and why.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from hookseal import Admin, Publisher
from hookseal.api import app
from hookseal.api.calls import CALLS
from tests.api.conftest import signed_in
from tests.api.owned import owned
from tests.api.test_generated_requests import HEADERS, examples
from tests.doubles.applications import served
from tests.doubles.stored import Installation

DOCUMENT: Final = Path(__file__).parent / "svix" / "openapi.json"
REDIRECTED: Final = 300
UNPROCESSABLE: Final = 422
NUMBERS: Final = count(1)
USABLE: Final[Mapping[str, Callable[[], object]]] = {
    "url": lambda: f"https://receiver.example/{next(NUMBERS)}",
    "eventType": lambda: "invoice.paid",
    "name": lambda: f"name.{next(NUMBERS)}",
    "description": lambda: "text",
    "disabled": lambda: False,  # the next requests send to it
    "headers": lambda: {"x-a": "b"},
    "since": lambda: "2026-01-01T00:00:00Z",
}
TAGS: Final = "messages have channels, and no tags"
# What a request that Svix allows is refused for, by the member or parameter that the answer names, and why.
REFUSED: Final[Mapping[str, str]] = {
    "uid": "of an application, one that could be the id of another",
    "url": "of what is no address, or may not be dialled",
    "idempotency-key": "1 to 256 visible ASCII characters",
    "iterator": "only one that a page has returned",
    "secret": "only one of the length that its algorithm needs",
    "key": "the same",
    "since": "before until",
    "until": "the same",
    "name": "printable, and event types are words with dots between them",
    "schemas": "a JSON schema for each version",
    "with_msg": "no message within an attempt",
    "eventType": "words with dots between them, and an example needs one of the catalogue",
    "eventTypes": "words with dots between them",
    "filterTypes": "the same",
    "event_types": "the same",
    "channels": "without colons and plus signs",
    "channel": "the same",
    "headers": "not those that hookseal sets, and no control characters",
    "metadata": "4,096 bytes",
    "description": "1,024 printable characters",
    "throttleRate": "of an endpoint, up to 10,000",
    "groupName": "event types have no groups",
    "featureFlag": "there are no feature flags",
    "featureFlags": "the same",
    "capabilities": "those that are scopes, and ViewBase is one of them",
    "sessionId": "128 visible ASCII characters",
    "sessionIds": "the same",
    "expiry": "at least a minute",
    "tags": TAGS,
    "tag": TAGS,
    "application": "one is not made with a message",
    "deliverAt": "there are no delays",
    "payloadRetentionPeriod": "one for the installation",
    "payloadRetentionHours": "the same",
    "transformationsParams": "there are no transformations",
    "exclude_apps_with_no_endpoints": "no such filter",
    "exclude_apps_with_disabled_endpoints": "the same",
    "exclude_apps_with_svix_play_endpoints": "the same",
    "task": "only endpoint.recover",
    "expunge": "event types are archived",
    "limit": "1 to 250",
}
# The Python client fails on the answer without a body that the document has: both clients take the new secret.
OTHERWISE: Final = {("v1.endpoint.rotate-secret", 200), ("v1.operational-webhook.endpoint.rotate-secret", 200)}
# Nothing that is valid there is done: only a portal logs out, and an example needs a schema with examples.
NEVER_DONE: Final = {"v1.authentication.logout", "v1.endpoint.send-example"}


@cache
def theirs() -> dict[str, Any]:
    """Return the document. What a body must not have is left out of it: members that nobody knows are refused."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    for path, method in _operations(document):
        body = document["paths"][path][method].get("requestBody")
        if body is not None:
            name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            schemas[name]["additionalProperties"] = False
    return document


@pytest.mark.pure
def test_the_document_has_what_is_served() -> None:
    """An operation of Svix that is served is in it, and no other one."""
    served = {(call.path, call.method.lower()) for call in CALLS if call.path.startswith("/api/v1/")}
    assert served == {(path, method) for path, methods in theirs()["paths"].items() for method in methods}


def asked(url: str, names: Mapping[str, str], operators: str) -> tuple[Counter[tuple[str, int]], list[str]]:
    """Make requests that the document allows. Return the answers by operation and status, and what it has not."""
    import schemathesis  # noqa: PLC0415 -- it takes a second, which no other test needs
    from requests import Session  # noqa: PLC0415 -- the same
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415 -- the same
    from schemathesis.specs.openapi import checks  # noqa: PLC0415 -- the same

    required = [
        not_a_server_error,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.status_code_conformance,
    ]
    document = theirs()
    schema = schemathesis.openapi.from_dict(document)
    answers, wrong = Counter[tuple[str, int]](), list[str]()
    with Session() as session:
        for path, method in sorted(_operations(document), key=_last_if_it_deletes):
            operation = document["paths"][path][method]["operationId"]
            own = dict(names) | ({"endpoint_id": operators} if "operational-webhook" in path else {})
            in_path = {name: value for name, value in own.items() if f"{{{name}}}" in path}
            cases = schema[path][method].as_strategy(schemathesis.GenerationMode.POSITIVE, path_parameters=in_path)
            for case in examples(cases):
                for change in (unchanged, usable):
                    change(case)
                    response = case.call(base_url=url, session=session, headers=HEADERS)
                    answers[operation, response.status_code] += 1
                    if (operation, response.status_code) in OTHERWISE:
                        continue
                    try:
                        case.validate_response(response, checks=required)
                    except BaseExceptionGroup as failures:
                        wrong += [f"{operation}: {each}" for each in failures.exceptions]
                    if response.status_code == UNPROCESSABLE:
                        places = {(str(each["loc"][-1]), each["msg"]) for each in response.json()["detail"]}
                        wrong += [
                            f"{operation} refuses {name}: {why}" for name, why in sorted(places) if name not in REFUSED
                        ]
    return answers, wrong


def _last_if_it_deletes(operation: tuple[str, str]) -> tuple[bool, bool]:
    path, method = operation
    return method == "delete", path == "/api/v1/app/{app_id}"


def _operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(path, method) for path, methods in document["paths"].items() for method in methods]


def unchanged(_case: Any) -> None:
    """Leave a request as it is."""


def usable(case: Any) -> None:
    """Leave out of a request what hookseal refuses by name, but what it must have."""
    case.headers = {}
    for part in (case.body, case.query):
        if isinstance(part, dict):
            for name in {*part} - {*USABLE}:
                if name in REFUSED:
                    del part[name]
            part |= {name: value() for name, value in USABLE.items() if name in part}


@pytest.mark.req("API-02", part="python")
@pytest.mark.req("API-07")
async def test_each_operation_answers_as_svix_allows(
    installation: Installation, publisher: Publisher, environ: dict[str, str]
) -> None:
    pages = {"HOOKSEAL_PORTAL_URL": "https://webhooks.example/portal"}  # without it a link to them is empty
    async with (
        Admin.connect(environ=environ | pages) as admin,
        served(app(admin, publisher, who=signed_in)) as url,
    ):
        names = await owned(installation, admin, "acme", uid="main")
        operators = await admin.endpoints.add(
            tenant_id="_operator", url="https://operator.example", event_types=["*"], actor="test"
        )
        answers, wrong = await asyncio.to_thread(asked, url, names, operators.endpoint_id)

    assert not wrong, "\n".join(wrong)
    assert NEVER_DONE == {name for name, _ in answers} - {name for name, status in answers if status < REDIRECTED}
