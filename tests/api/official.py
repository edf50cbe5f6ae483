"""The official Python client of Svix, whose answers are compared with the document of the API."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from svix.api import SvixAsync, SvixOptions

from hookseal.api.calls import CALLS
from hookseal.api.description import document

DESCRIBED = cache(lambda: document(CALLS))


@asynccontextmanager
async def official(token: str, url: str) -> AsyncIterator[SvixAsync]:
    """Yield a client that repeats nothing, and close its connections. Each answer must be as the document says."""
    client = SvixAsync(token, SvixOptions(server_url=url, retry_schedule=[]))
    client._httpx_client.event_hooks["response"] = [as_described]
    try:
        yield client
    finally:
        await client._httpx_client.aclose()  # it has no method for that


async def as_described(response: httpx.Response) -> None:
    """Fail unless the document has this answer of this call."""
    path = response.request.url.path
    require_described(
        response.request.method, path[path.index("/api/v1/") :], response.status_code, await response.aread()
    )


def require_described(method: str, path: str, status: int, body: bytes) -> None:
    """Fail unless the document has this answer of the call with this method and path."""
    answers = next(
        methods[method.lower()]["responses"]
        for pattern, methods in DESCRIBED()["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method.lower() in methods
    )
    answer = answers.get(str(status), answers.get("default"))
    assert answer is not None, (method, path, status)
    schema = _schema(answer)
    assert bool(body) == (schema is not None), (method, path, status)
    if schema is not None:
        whole = {**schema, "components": DESCRIBED()["components"]}
        checker = Draft202012Validator.FORMAT_CHECKER
        Draft202012Validator(whole, format_checker=checker).validate(json.loads(body))


def _schema(answer: dict[str, Any]) -> dict[str, Any] | None:
    if "$ref" in answer:
        answer = DESCRIBED()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    content = answer.get("content")
    return None if content is None else content["application/json"]["schema"]
