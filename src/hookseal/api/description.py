"""The OpenAPI document of the API, made from the table of calls and the structs that they take and return. Pure."""

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hookseal.api.access import ALL
from hookseal.api.call import Call
from hookseal.ground.version import VERSION

_PARAMETER: Final = re.compile(r"{(\w+)}")
_REFERENCES: Final = "#/components/schemas/{name}"
_NAMED: Final = {
    "app_id": "The id or the uid of an application.",
    "endpoint_id": "The id or the uid of an endpoint.",
    "msg_id": "The id of a message.",
    "attempt_id": "The id of an attempt.",
    "delivery_id": "The id of a delivery.",
    "task_id": "The id of a background task.",
    "event_type_name": "The name of an event type.",
    "token_name": "The name of a token.",
}
_KEY: Final = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key has one effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}


class Error(msgspec.Struct):
    """What went wrong."""

    code: str
    detail: str


class Invalid(msgspec.Struct):
    """A wrong part of a request: where it is, and why it is wrong."""

    loc: list[str]
    msg: str
    type: str


class Unprocessable(msgspec.Struct):
    """The wrong parts of a request."""

    detail: list[Invalid]


def document(calls: Iterable[Call]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these calls."""
    calls = tuple(calls)
    kinds = [kind for call in calls for kind in (call.query, call.body, call.result) if kind is not None]
    shown, components = msgspec.json.schema_components(
        list(dict.fromkeys([*kinds, Error, Unprocessable])), ref_template=_REFERENCES
    )
    for each in components.values():
        if "description" in each:  # a docstring, whose indentation Python 3.13 removes
            each["description"] = inspect.cleandoc(each["description"])
    schemas = dict(zip(dict.fromkeys([*kinds, Error, Unprocessable]), shown, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas, components)
    queries = {_name(schemas[call.query]) for call in calls}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hookseal",
            "version": VERSION,
            "description": "Delivers webhooks. These calls are those of Svix; docs/api.md says what differs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"A token of `hookseal token add`, with scopes: {', '.join(sorted(ALL))}.",
                }
            },
            "responses": {
                "Error": {"description": "An error.", "content": _json(schemas[Error])},
                "Unprocessable": {
                    "description": "A part of the request is wrong.",
                    "content": _json(schemas[Unprocessable]),
                },
            },
            "schemas": {name: schema for name, schema in sorted(components.items()) if name not in queries},
        },
    }


def _operation(call: Call, schemas: dict[Any, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    subject, _, _ = call.name.partition(".")
    operation: dict[str, Any] = {
        "operationId": call.name,
        "tags": [subject],
        "summary": " ".join((inspect.getdoc(call.handler) or "").split("\n\n", maxsplit=1)[0].split()),
        "parameters": [*_in_path(call), *_in_query(components[_name(schemas[call.query])])],
        "responses": _answers(call, schemas),
    }
    if call.method == "POST":
        operation["parameters"].append(_KEY)
    if call.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(schemas[call.body])}
    if not call.scopes:
        operation["security"] = []
    else:
        operation["x-scopes"] = sorted(call.scopes)
    return operation


def _in_path(call: Call) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "description": _NAMED[name], "schema": {"type": "string"}}
        for name in _PARAMETER.findall(call.path)
    ]


def _in_query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = []
    for name, member in schema["properties"].items():
        described = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": member}
        if any(each.get("type") == "array" for each in (member, *member.get("anyOf", ()))):
            described |= {"style": "form", "explode": False}
        parameters.append(described)
    return parameters


def _answers(call: Call, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "It was done."}
    if call.result is not None:
        good["content"] = _json(schemas[call.result])
    if call.headers:
        good["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in call.headers.items()
        }
    statuses = [str(call.status)]
    if call.method == "PUT" and call.status == 200:  # noqa: PLR2004 -- 201 if it was made
        statuses.append("201")
    if call.name == "application.create":
        statuses.append("200")
    answers = dict.fromkeys(statuses, good)
    if not call.scopes:
        return answers
    return answers | {
        "422": {"$ref": "#/components/responses/Unprocessable"},
        "default": {"$ref": "#/components/responses/Error"},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def text(calls: Iterable[Call]) -> str:
    """Return the document as it is stored: docs/openapi.json."""
    return msgspec.json.format(msgspec.json.encode(document(calls)), indent=1).decode() + "\n"
