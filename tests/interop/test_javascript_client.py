"""The official JavaScript clients, unchanged, against `hookseal api` and a worker: each call, up to a delivery."""

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from hookseal import Admin
from hookseal.api import ALL
from hookseal.api.calls import CALLS
from hookseal.postgres.pool import Pool
from tests.api.alone import serving
from tests.api.official import require_described
from tests.api.test_official_client import listed
from tests.interop.node_modules import installed
from tests.worker.environment import environment
from tests.worker.world import world
from tools.pages.calls import why_not

SECONDS = 120
SERVED = {call.name for call in CALLS if call.path.startswith("/api/v1/")}


def called(method: str, path: str) -> str | None:
    """Return the call that this request is; None if it is refused by name."""
    for call in CALLS:
        if call.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", call.path), path):
            return call.name
    return None


async def answered(library: str, url: str, token: str, program: str = "calls.mjs") -> list[Any]:
    """Return every answer that this version of the library has got, once its program has ended without a failure."""
    process = await asyncio.create_subprocess_exec(
        *("node", program, library),
        cwd=await asyncio.to_thread(installed),
        env=os.environ | {"HOOKSEAL_URL": url, "HOOKSEAL_TOKEN": token},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 0 == process.returncode, err.decode()
    answers: list[Any] = json.loads(out)
    return answers


@pytest.mark.req("API-02", part="javascript")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("library", ["svix", "svix2"])
async def test_each_call_and_a_delivery(
    library: str, begun_pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Each version makes every call that is served; each answer is as the document says, each delivery verifies."""
    installed_here = await world(begun_pool, database_url, redis_url, tmp_path)
    settings = environment(database_url, redis_url)
    async with Admin.connect(environ=settings) as admin:
        made = await admin.tokens.add(name="product", tenant_id="*", scopes=sorted(ALL), actor="test")
    async with installed_here.worker(), serving(settings) as (_, ready):
        answers = await answered(library, ready["url"], made.token.reveal().decode())

    for method, path, status, body in answers:
        if called(method, path) is not None:
            require_described(method, path, status, body.encode())
    assert SERVED == {called(method, path) for method, path, *_ in answers} - {None}


@pytest.mark.req("API-02", part="javascript")
@pytest.mark.req("API-07")
@pytest.mark.timeout(240)
async def test_each_method_is_served_or_refused_as_listed(
    begun_pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """By docs/reference/calls.md, and every other request that the library knows is refused as well."""
    await world(begun_pool, database_url, redis_url, tmp_path)
    settings = environment(database_url, redis_url)
    async with Admin.connect(environ=settings) as admin:
        made = await admin.tokens.add(name="product", tenant_id="*", scopes=sorted(ALL), actor="test")
    async with serving(settings) as (_, ready):
        answers = await answered("svix2", ready["url"], made.token.reveal().decode(), "methods.mjs")

    known = {elsewhere.strip("`"): (request, here) for elsewhere, request, here in listed().values()}
    assert known.keys() - {"none"} == {name for name, *_ in answers}
    assert len(known) - 1 == len(answers)
    for name, method, path, status, body in answers:
        request, here = known[name]
        assert re.sub(r"{\w+}", "x", request) == f"{method} {path}", name
        if here == "served":
            assert status not in {404, 405, 501} or "not_found" in body, (name, body)
        else:
            refused = {"code": "not_supported", "detail": here.removeprefix("not supported: ")}
            assert (501, refused) == (status, json.loads(body)), name
    library = await asyncio.to_thread((installed() / "node_modules/svix2/dist/index.mjs").read_text, encoding="utf-8")
    requests = set(re.findall(r'new SvixRequest\("(\w+)", "([^"]+)"\)', library))
    assert len(requests) > 140
    assert {why_not(method, path) for method, path in requests} - {None}
