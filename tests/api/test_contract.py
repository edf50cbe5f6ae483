"""What every call has in common: who is let in, how what is wrong is answered, and how much is read."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.api import app, bodies
from hookseal.api.calls import CALLS
from hookseal.api.calls.refused import REFUSED
from tests.api.conftest import signed_in
from tests.doubles.applications import served
from tests.worker.waiting import eventually

MESSAGE = {"eventType": "invoice.paid", "payload": {"id": 1}}
FORMS = {
    "app_id": "acme",
    "endpoint_id": "0193b0c0-0000-7000-8000-000000000000",
    "msg_id": "none",
    "task_id": "acme.none-such",
    "attempt_id": "0193b0c0-0000-7000-8000-000000000000.1",
    "delivery_id": "0193b0c0-0000-7000-8000-000000000000",
    "event_type_name": "none.such",
    "token_name": "none-such",
}


def path_of(pattern: str, names: Mapping[str, str] = FORMS) -> str:
    """Return a path of this pattern with these names, by default of nothing."""
    for name, value in names.items():
        pattern = pattern.replace("{" + name + "}", value)
    return pattern.replace("{rest:path}", "/x")


def is_problem(response: httpx.Response) -> bool:
    """Return whether the answer has the form of a problem that clients parse."""
    body = response.json()
    if response.status_code == 422:
        return all({"loc", "msg", "type"} == each.keys() and each["loc"] for each in body["detail"])
    return {"code", "detail"} == body.keys() and all(isinstance(each, str) for each in body.values())


@pytest.mark.req("API-03")
@pytest.mark.parametrize("token", [None, "Bearer none", "Basic every", "Bearer"])
async def test_no_call_is_answered_without_a_token(token: str | None, url: str) -> None:
    headers = {} if token is None else {"authorization": token}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        for call in CALLS:
            response = await client.request(call.method, path_of(call.path))
            assert (401 if call.scopes else 204) == response.status_code, call.name
            if call.scopes:
                assert {"code": "authentication_failed", "detail": "Invalid token"} == response.json(), call.name
                assert "Bearer" == response.headers["www-authenticate"], call.name


@pytest.mark.req("API-03")
@pytest.mark.parametrize("nobody", [None, "", False])
async def test_nobody_is_signed_in(nobody: Any, admin: Admin, publisher: Publisher) -> None:
    """As with `user and Access(...)`, where the user may be anything that is false."""
    async with served(app(admin, publisher, who=lambda _: nobody)) as url, httpx.AsyncClient(base_url=url) as client:
        assert 401 == (await client.get("/api/v1/app")).status_code


@pytest.mark.req("API-04")
async def test_a_token_of_one_tenant_finds_nothing_of_another(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer globex"}) as client:
        for call in (call for call in CALLS if "{" in call.path and not call.of_every_tenant):
            response = await client.request(call.method, path_of(call.path))
            assert (404, {"code": "not_found", "detail": "Entity not found"}) == (
                response.status_code,
                response.json(),
            ), call.name


@pytest.mark.req("API-03")
async def test_a_token_that_only_reads_changes_nothing(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer reader"}) as client:
        for call in (call for call in CALLS if call.method != "GET"):
            response = await client.request(call.method, path_of(call.path))
            assert (403, "insufficient_access") == (response.status_code, response.json()["code"]), call.name


async def test_everything_unknown_is_answered_in_json(client: httpx.AsyncClient) -> None:
    for path in ("/", "/api/v1", "/api/v1/app/acme/nonsense", "/api/v2/app", "/favicon.ico", "/api/v1/app/a%2Fb/msg"):
        response = await client.get(path)
        assert (404, True, "no call has this path") == (
            response.status_code,
            is_problem(response),
            response.json()["detail"],
        ), path
    slash = await client.get("/api/v1/app/")
    assert "no call has this path: leave out the slash at its end" == slash.json()["detail"]
    for method in ("TRACE", "OPTIONS", "DELETE"):
        response = await client.request(method, "/api/v1/app/acme/msg")
        assert (405, True) == (response.status_code, is_problem(response)), method
        assert "POST" in response.headers["allow"]


@pytest.mark.req("API-07")
async def test_what_hookseal_does_not_do_is_refused_by_name(client: httpx.AsyncClient) -> None:
    for path, why in REFUSED.items():
        for method in ("GET", "POST", "DELETE"):
            response = await client.request(method, path_of(path))
            assert (501, {"code": "not_supported", "detail": why}) == (response.status_code, response.json()), path


@pytest.mark.req("API-07")
async def test_every_call_refuses_unknown_parameters(client: httpx.AsyncClient) -> None:
    for call in CALLS:
        response = await client.request(call.method, path_of(call.path), params={"nonsense": "1"})
        assert (422, ["query", "nonsense"]) == (response.status_code, response.json()["detail"][0]["loc"]), call.name


async def test_every_call_refuses_a_body_that_is_no_json(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for call in (call for call in CALLS if call.body is not None):
        for body in (b"", b"{", b"[]", b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b"[" * 2_000, b'{"nonsense": NaN}'):
            response = await client.request(call.method, path_of(call.path), content=body, headers=headers)
            assert (422, True) == (response.status_code, is_problem(response)), (call.name, body)


async def test_a_body_must_say_that_it_is_json(client: httpx.AsyncClient) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        response = await client.post("/api/v1/app/acme/msg", content=b"{}", headers=headers)
        assert (415, True) == (response.status_code, is_problem(response)), headers
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = await client.post("/api/v1/app/acme/msg", content=b"{}", headers=headers)
    assert (415, True) == (response.status_code, is_problem(response))


@pytest.mark.parametrize("chunked", [False, True])
async def test_no_more_is_read_than_a_call_may_have(chunked: bool, client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for call in (call for call in CALLS if call.body is not None):
        body = b" " * (call.most + 1)

        async def pieces(body: bytes = body) -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65_536):
                yield body[start : start + 65_536]

        content = pieces() if chunked else body
        response = await client.request(call.method, path_of(call.path), content=content, headers=headers)
        assert (413, "payload_too_large") == (response.status_code, response.json()["code"]), call.name
        body = b" " * call.most
        assert (
            422 == (await client.request(call.method, path_of(call.path), content=body, headers=headers)).status_code
        ), call.name


async def test_a_body_that_stops_is_answered_in_time(
    admin: Admin, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookseal.api.application.Bodies", partial(bodies.Bodies, seconds=0.3))
    async with served(app(admin, publisher, who=signed_in)) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: x\r\nauthorization: Bearer every\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"timeout"' in answer


async def test_a_body_counts_for_the_tenant_of_its_path(
    admin: Admin, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with one token for every tenant: what is in work for one refuses nothing of another."""
    monkeypatch.setattr("hookseal.api.application.Bodies", partial(bodies.Bodies, most=100))
    async with served(app(admin, publisher, who=signed_in)) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /api/v1/app/acme/msg HTTP/1.1\r\nhost: x\r\nauthorization: Bearer every\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n" + b" " * 50
        )
        async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer every"}) as client:

            async def status(tenant: str) -> int:
                return (await client.post(f"/api/v1/app/{tenant}/msg", json={})).status_code

            async def is_refused() -> bool:
                return await status("acme") == 503

            await eventually(is_refused)
            assert 422 == await status("globex")
        writer.close()


async def test_pages_of_foreign_origins_are_refused_in_the_same_form(admin: Admin, publisher: Publisher) -> None:
    """The question of a browser is answered without a body if its page may use the API, and else in JSON."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    api = app(admin, publisher, who=signed_in, origins=["https://good.example"])
    async with served(api) as url, httpx.AsyncClient(base_url=url) as client:
        good, bad = [
            await client.options("/api/v1/app", headers=asked | {"origin": f"https://{name}.example"})
            for name in ("good", "bad")
        ]
    assert (204, b"", "https://good.example") == (
        *(good.status_code, good.content, good.headers["access-control-allow-origin"]),
    )
    assert (403, {"code": "origin_refused", "detail": "Disallowed CORS origin"}) == (bad.status_code, bad.json())
    assert "access-control-allow-origin" not in bad.headers


async def test_an_answer_is_not_kept_by_anybody(client: httpx.AsyncClient) -> None:
    for response in (await client.get("/api/v1/health"), await client.get("/api/v1/nonsense")):
        assert ("no-store", "nosniff") == (
            response.headers["cache-control"],
            response.headers["x-content-type-options"],
        )


async def test_head_is_answered_as_get_without_a_body(client: httpx.AsyncClient) -> None:
    path = "/api/v1/app/acme/msg/none"
    of_head, of_get = await client.head(path), await client.get(path)

    assert (404, b"") == (of_head.status_code, of_head.content)
    assert of_get.headers["content-length"] == of_head.headers["content-length"]
