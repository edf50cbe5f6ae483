"""The public libraries for Python and JavaScript accept requests of a real worker, and refuse altered ones."""

import asyncio
import base64
import json
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Scheme
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.interop.node_modules import FOLDER, installed
from tests.worker.world import receiving, world

pytestmark = [pytest.mark.req("DEL-04", part="public-libraries"), pytest.mark.timeout(240)]

OLD, NEW, STRANGERS = (generate_signing_secret().reveal().decode() for _ in range(3))
ACME = TenantId("acme")


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request, and the secret with which a receiver verifies it."""

    body: bytes
    headers: Mapping[str, str]
    secret: str


async def received(
    pool: Pool, database_url: str, redis_url: str, folder: Path, *, scheme: Scheme = Scheme.STANDARD
) -> list[Received]:
    """Return a worker's requests: before, during (for either secret) and after an overlap."""
    installed_here = await world(pool, database_url, redis_url, folder)
    found = []
    async with receiving() as receiver, installed_here.worker():
        new = NewEndpoint(tenant_id=ACME, url=f"{receiver.base_url}/hook", event_types=("*",), scheme=scheme)
        added = await installed_here.installation.add(new, SecretMaterial(OLD.encode()))
        for knows, overlap in (((OLD,), 3600), ((OLD, NEW), 0), ((STRANGERS,), None)):
            number = len(receiver.received) + 1
            await installed_here.deliver()
            request = await receiver.wait_for(number)
            headers = request.headers
            found += [Received(body=request.body, headers=headers, secret=secret) for secret in knows]
            if overlap is not None:
                secret = NEW if overlap else STRANGERS
                wanted = RotationRequest(
                    tenant_id=ACME,
                    endpoint_id=added.pointer.endpoint_id,
                    overlap_seconds=overlap,
                    secret=SecretMaterial(secret.encode()),
                    given=True,
                )
                async with pool.acquire() as connection:
                    await rotate_secret(installed_here.installation.operator(connection), wanted)
    return found


def altered(request: Received) -> list[Received]:
    headers = dict(request.headers)
    stale = str(int(headers["webhook-timestamp"]) - 3600)
    return [
        replace(request, body=request.body.replace(b"invoice", b"Invoice")),
        replace(request, body=request.body + b" "),
        replace(request, secret=generate_signing_secret().reveal().decode()),
        replace(request, headers=headers | {"webhook-id": headers["webhook-id"] + "0"}),
        replace(request, headers=headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
        replace(request, headers=headers | {"webhook-timestamp": stale}),
        replace(request, headers={name: value for name, value in headers.items() if name != "webhook-signature"}),
    ]


def in_python(requests: list[Received]) -> list[dict[str, str]]:
    """Return the verdicts of the Python libraries; they are imported here because they load slowly."""
    return [{name.partition(".")[0]: _verdict(import_module(name), each) for name in LIBRARIES} for each in requests]


LIBRARIES = ("standardwebhooks", "svix.webhooks")


def _verdict(library: Any, request: Received) -> str:
    try:
        library.Webhook(request.secret).verify(request.body, dict(request.headers))
    except library.WebhookVerificationError:
        return "refused"
    return "taken"


async def in_javascript(requests: list[Received]) -> list[dict[str, str]]:
    folder = await asyncio.to_thread(installed)
    asked = [
        {"secret": each.secret, "headers": dict(each.headers), "body": base64.b64encode(each.body).decode()}
        for each in requests
    ]
    process = await asyncio.create_subprocess_exec("node", "verify.mjs", cwd=folder, stdin=PIPE, stdout=PIPE)
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(asked).encode()), 60)
    assert 0 == process.returncode
    answers: list[dict[str, str]] = json.loads(out)
    return answers


TAKEN = {"standardwebhooks": "taken", "svix": "taken"}
REFUSED = {"standardwebhooks": "refused", "svix": "refused"}


async def test_public_python_libraries_verify_our_requests(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Both libraries accept every request, in an overlap with either secret, and refuse each altered one."""
    requests = await received(pool, database_url, redis_url, tmp_path)
    assert [OLD, OLD, NEW, STRANGERS] == [request.secret for request in requests]
    assert [1, 2, 2, 1] == [request.headers["webhook-signature"].count("v1,") for request in requests]
    assert [TAKEN] * 4 == in_python(requests)
    for request in requests:
        others = altered(request)
        assert [REFUSED] * len(others) == in_python(others)
    assert [REFUSED] == in_python([replace(requests[-1], secret=OLD)])


async def test_public_javascript_libraries_verify_our_requests(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    requests = await received(pool, database_url, redis_url, tmp_path)
    assert [TAKEN] * 4 == await in_javascript(requests)
    others = [each for request in requests for each in altered(request)]
    assert [REFUSED] * len(others) == await in_javascript(others)


@pytest.mark.req("DEL-21", part="svix")
async def test_libraries_of_svix_verify_the_names_of_svix(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """In Python and in JavaScript. A library of Standard Webhooks finds no header that it knows."""
    requests = await received(pool, database_url, redis_url, tmp_path, scheme=Scheme.SVIX)
    assert [1, 2, 2, 1] == [request.headers["svix-signature"].count("v1,") for request in requests]
    assert not [name for request in requests for name in request.headers if name.startswith("webhook-")]
    only_svix = {"standardwebhooks": "refused", "svix": "taken"}
    assert [only_svix] * 4 == in_python(requests)
    assert [only_svix] * 4 == await in_javascript(requests)
    wrong = [replace(requests[-1], secret=OLD), replace(requests[0], body=b"{}")]
    assert [REFUSED] * 2 == in_python(wrong)
    assert [REFUSED] * 2 == await in_javascript(wrong)


def test_every_package_is_pinned() -> None:
    """Every package of the lock file has its digest, and no address."""
    packages = json.loads((FOLDER / "package-lock.json").read_bytes())["packages"]
    named = {name: package for name, package in packages.items() if name}
    assert {"node_modules/standardwebhooks", "node_modules/svix", "node_modules/svix2"} <= named.keys()
    assert all(package["integrity"].startswith("sha512-") for package in named.values())
    assert all("resolved" not in package for package in named.values())
