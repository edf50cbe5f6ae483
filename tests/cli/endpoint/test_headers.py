"""`hookseal endpoint add`, `update` and `show` with headers: values are sealed, and only names are shown."""

from pathlib import Path
from typing import Any

import pytest

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.secrets.endpoint import pointer
from tests.cli.command import Ended, hookseal
from tests.cli.installation import Begun, options_of

ADD = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*")
CANARY = "Zq7-canary"


async def sent(begun: Begun, endpoint: str) -> dict[str, str]:
    """Return the headers that a worker would send now."""
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        found = await pointer.lock(connection, tenant=TenantId("acme"), endpoint_id=EndpointId(endpoint))
    async with begun.stored.unlocked.service.headers(found) as values:
        return {name: value.reveal().decode() for name, value in values.items()}


async def shown(begun: Begun, endpoint: str) -> dict[str, Any]:
    """Return what `endpoint show` says of the headers, which contains no value."""
    ended = await begun.run("endpoint", "show", *options_of(endpoint), "--json")
    assert (0, False) == (ended.code, CANARY in ended.out)
    return ended.json


def problem(ended: Ended) -> tuple[int, str | None]:
    """Return the exit code and the field of an error in JSON that contains no value."""
    assert CANARY not in ended.out + ended.err
    return ended.code, ended.json["error"]["field"]


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_only_names_of_headers_are_shown(begun: Begun, tmp_path: Path) -> None:
    """Headers are added from arguments and a file, set and removed; only their names are ever shown."""
    path = tmp_path / "headers"
    path.write_text(f"Authorization: Bearer {CANARY}\n\nX-Team: billing\n")
    path.chmod(0o600)
    options = ("--header", f"X-Key: {CANARY}", "--headers-file", str(path), "--rotate-every", "30")
    added = await begun.run(*ADD, *options, "--json")
    assert (0, "") == (added.code, added.err)
    one = added.json["endpoint_id"]
    assert {"authorization": f"Bearer {CANARY}", "x-team": "billing", "x-key": CANARY} == await sent(begun, one)
    facts = await shown(begun, one)
    assert (["authorization", "x-key", "x-team"], 30) == (facts["header_names"], facts["rotate_every_days"])
    assert f"db:acme:endpoint-headers-{one}:1" == facts["headers_ref"]

    change = ("--header", "X-Team: finance", "--header", f"x-new: {CANARY}-2", "--remove-header", "X-KEY")
    updated = await begun.run("endpoint", "update", *options_of(one), *change, "--rotate-every", "none", "--json")
    assert ({"tenant_id": "acme", "endpoint_id": one}, ["rotate_every_days", "headers"], 2, []) == (
        {name: updated.json[name] for name in ("tenant_id", "endpoint_id")},
        *(updated.json[name] for name in ("changed", "generation", "dropped")),
    )
    assert {"authorization": f"Bearer {CANARY}", "x-team": "finance", "x-new": f"{CANARY}-2"} == await sent(begun, one)
    assert (await shown(begun, one))["rotate_every_days"] is None


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_file_replaces_all_headers(begun: Begun) -> None:
    """A file replaces all headers; the text says which were and are set, or that only values changed."""
    one = (await begun.run(*ADD, "--header", f"a: {CANARY}", "--header", "b: 2", "--json")).json["endpoint_id"]
    update = ("endpoint", "update", *options_of(one))
    replaced = await begun.fed(f"b: {CANARY}-3\r\n".encode(), *update, "--headers-file", "-")
    lines = [f"endpoint {one} is changed; generation 2", "headers: a b -> b"]
    assert lines == replaced.out.splitlines()
    again = await begun.fed(f"b: {CANARY}-4\n".encode(), *update, "--headers-file", "-")
    assert "headers: b, with other values" == again.out.splitlines()[1]
    assert (2, "headers_file") == problem(await begun.fed(b"", *update, "--headers-file", "-", "--json"))
    assert {"b": f"{CANARY}-4"} == await sent(begun, one)
    emptied = await begun.run(*update, "--remove-header", "B")
    assert "headers: b -> -" == emptied.out.splitlines()[1]
    assert ({}, []) == (await sent(begun, one), (await shown(begun, one))["header_names"])


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_another_server_gets_headers_only_if_they_are_to_be_kept(begun: Begun) -> None:
    one = (await begun.run(*ADD, "--header", f"a: {CANARY}", "--header", "b: 2", "--json")).json["endpoint_id"]
    update = ("endpoint", "update", *options_of(one))
    kept = await begun.run(*update, "--url", "https://kept.example", "--keep-headers", "--json")
    assert (["url"], []) == (kept.json["changed"], kept.json["dropped"])
    text = await begun.run(*update, "--url", "https://other.example", "--header", "b: 3")
    assert "headers: a b -> b" in text.out.splitlines()
    assert "removed, because the url is of another server: headers.a. Give them anew" in text.out
    assert {"b": "3"} == await sent(begun, one)
    last = await begun.run(*update, "--url", "https://last.example", "--json")
    assert (["url", "headers"], ["headers.b"]) == (last.json["changed"], last.json["dropped"])
    assert {} == await sent(begun, one)


async def test_help_warns() -> None:
    """The help warns that other users can read arguments, and names the safer way."""
    for command in ("add", "update"):
        text = " ".join((await hookseal("endpoint", command, "--help", COLUMNS="300")).out.split())
        assert "Other users of this machine can read arguments: prefer --headers-file." in text
