"""The official Python client of Svix, whose answers are compared with the document of the API."""

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
    method, path = response.request.method.lower(), response.request.url.path
    path = path[path.index("/api/v1/") :]
    answers = next(
        methods[method]["responses"]
        for pattern, methods in DESCRIBED()["paths"].items()
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method in methods
    )
    answer = answers.get(str(response.status_code), answers.get("default"))
    assert answer is not None, (method, path, response.status_code)
    schema = _schema(answer)
    body = await response.aread()
    assert bool(body) == (schema is not None), (method, path, response.status_code)
    if schema is not None:
        whole = {**schema, "components": DESCRIBED()["components"]}
        Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(response.json())


def _schema(answer: dict[str, Any]) -> dict[str, Any] | None:
    if "$ref" in answer:
        answer = DESCRIBED()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    content = answer.get("content")
    return None if content is None else content["application/json"]["schema"]
