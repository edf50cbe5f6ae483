"""The OpenAPI document is the code: each call with what it takes and answers, stored and served."""

import json
import re
from typing import Any

import httpx
import pytest

from hookseal import Admin
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.api.description import document, text
from hookseal.api.paging import Paged
from tests.api.owned import owned
from tests.api.test_contract import FORMS, path_of
from tests.doubles.stored import Installation

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


OTHER_FORM = "must be one that a page of this list has returned"
LISTS = [call for call in CALLS if issubclass(call.query, Paged)]
ID, ID4 = "0193b0c0-0000-7000-8000-000000000000", "0193b0c0-0000-4000-8000-000000000000"
ITERATORS = [
    *(
        "",
        "-",
        "~",
        ".",
        "..",
        "-..",
        "x",
        "-x",
        "~x",
        "~-x",
        "--x",
        "~~x",
        "x y",
        "x\n",
        "x" * 128,
        "x" * 129,
        "x" * 257,
    ),
    *(
        "~-" + "x" * 127,
        "~-" + "x" * 128,
        "_operator",
        "x.none",
        "a..b",
        "a:b",
        "5",
        "05",
        "-5",
        "\uff15",
        "9" * 18,
        "9" * 19,
    ),
    *(ID, f"-{ID}", f"~{ID}", ID.upper(), ID4, f"{ID}\n", f"x.{ID}", f"x.y.{ID}", f"_operator.{ID}", f"_system.{ID}"),
    *(f"{ID}.1", f"-{ID}.1", f"{ID4}.1", f"{ID}.0", f"{ID}.999999999", f"{ID}.9999999999", f"{ID}.1\n"),
]


@pytest.mark.parametrize("call", LISTS, ids=lambda call: call.name)
async def test_a_list_takes_the_iterators_that_the_document_describes_and_no_others(
    call: Call, client: httpx.AsyncClient, admin: Admin, installation: Installation
) -> None:
    names = await owned(installation, admin, "acme")
    if "operational" in call.name:
        await admin.endpoints.add(tenant_id="_operator", url="https://o.example", event_types=["*"], actor="test")
    [described] = [each for each in DOCUMENT["paths"][call.path]["get"]["parameters"] if each["name"] == "iterator"]
    [form] = [each["pattern"] for each in described["schema"]["anyOf"] if "pattern" in each]
    for iterator in ITERATORS:
        answer = await client.get(path_of(call.path, names), params={"iterator": iterator})
        fits = re.search(form.replace("$", r"\Z"), iterator) is not None
        if not fits or answer.status_code != 200:  # messages and attempts must be there
            [detail] = answer.json()["detail"]
            assert (422, ["query", "iterator"], not fits) == (
                *(answer.status_code, detail["loc"], detail["msg"] == OTHER_FORM),
            ), (iterator, detail)


async def test_the_document_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/openapi.json", headers={"authorization": ""})

    assert (200, text(CALLS)) == (response.status_code, response.text)
    assert "3.1.0" == json.loads(response.text)["openapi"]
