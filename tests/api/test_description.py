"""The OpenAPI document is the code: each call with what it takes and answers, stored and served."""

import json
from typing import Any

import httpx
import pytest

from hookseal.api.calls import CALLS
from hookseal.api.description import document, text
from tests.api.test_contract import FORMS

pytestmark = pytest.mark.req("API-08")

DOCUMENT = document(CALLS)


def references(part: Any) -> set[str]:
    """Return every reference in a part of the document."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_each_call_is_described() -> None:
    described = {
        operation["operationId"]: (method.upper(), path, tuple(operation.get("x-scopes", ())))
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }

    assert {call.name: (call.method, call.path, tuple(sorted(call.scopes))) for call in CALLS} == described
    assert [] == [call.name for call in CALLS if not DOCUMENT["paths"][call.path][call.method.lower()]["summary"]]


def test_each_parameter_of_a_path_is_described() -> None:
    for call in CALLS:
        parameters = DOCUMENT["paths"][call.path][call.method.lower()]["parameters"]
        in_path = [each["name"] for each in parameters if each["in"] == "path"]
        assert sorted(in_path) == sorted(name for name in FORMS if f"{{{name}}}" in call.path), call.name


def test_each_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found, reference


def test_unknown_members_are_refused_by_the_document_too() -> None:
    bodies = {call.body.__name__ for call in CALLS if call.body is not None}

    assert [] == [
        name for name in sorted(bodies) if DOCUMENT["components"]["schemas"][name]["additionalProperties"] is not False
    ]


async def test_the_document_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/openapi.json", headers={"authorization": ""})

    assert (200, text(CALLS)) == (response.status_code, response.text)
    assert "3.1.0" == json.loads(response.text)["openapi"]
