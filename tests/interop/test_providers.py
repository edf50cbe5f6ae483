"""Every way to use an installation, with its secrets at each provider: commands, `Admin`, a worker, both moves."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from hookseal.postgres.pool import Pool
from hookseal.secrets.core.ref import Provider
from tests.cli.command import hookseal
from tests.doubles.aws import aws_client
from tests.doubles.google import google_cloud
from tests.doubles.legacy import legacy
from tests.doubles.openbao import ROOT_TOKEN
from tests.doubles.providers import AWS_ENVIRONMENT, REGION, prefix
from tests.worker.environment import environment
from tests.worker.waiting import PATIENCE_SECONDS
from tests.worker.world import receiving, world

# The program of a customer of ours: it imports nothing but hookseal, and reads its environment.
PROGRAM = """
import asyncio, json, os
from hookseal import Admin

async def main():
    of = {"tenant_id": "acme", "actor": "jane@product.example"}
    async with Admin.connect() as admin:
        added = await admin.endpoints.add(url=os.environ["RECEIVER_URL"], event_types=["*"], **of)
        of["endpoint_id"] = added.endpoint_id
        first = await admin.secrets.reveal(**of)
        assert first.secret.reveal() == added.secret.reveal()
        rotated = await admin.secrets.rotate(overlap_seconds=3600, **of)
        second = await admin.secrets.reveal(**of)
        assert second.secret.reveal() == rotated.secret.reveal() != first.secret.reveal()
    secrets = [each.secret.reveal().decode() for each in (first, second)]
    print(json.dumps({"endpoint_id": added.endpoint_id, "ref": second.secret_ref, "secrets": secrets}))

asyncio.run(main())
"""


@pytest.fixture
def where(request: pytest.FixtureRequest) -> str:
    """Return the address of the server of the provider, if the tests share one; it starts outside of an event loop."""
    servers = {Provider.OPENBAO: "openbao_address", Provider.AWS: "aws_address"}
    name = servers.get(request.node.callspec.params["provider"])
    return "" if name is None else str(request.getfixturevalue(name))


@asynccontextmanager
async def variables_of(provider: Provider, where: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Give the variables of a process whose new secrets are at this provider, which runs during the block."""
    own = {"SECRETS_PROVIDER": provider.value, "SECRETS_NAME_PREFIX": prefix()}
    match provider:
        case Provider.AWS:
            with aws_client(where, "secretsmanager") as client:
                await client.list_secrets()  # its first answer takes a second, in which moto loads what it needs
            yield own | AWS_ENVIRONMENT | {"AWS_REGION": REGION, "AWS_ENDPOINT_URL": where}
        case Provider.OPENBAO:
            yield own | {"BAO_ADDR": where, "BAO_TOKEN": ROOT_TOKEN}
        case Provider.GCP:
            async with google_cloud(folder) as variables:
                yield own | variables
        case _:
            yield {}


async def customers_program(folder: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run the program in a Python of its own, with these variables and nothing of the tests, and return its answer."""
    file = folder / "customer.py"
    file.write_text(PROGRAM)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-E", file),
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (0, b"") == (process.returncode, err)
    answer: dict[str, Any] = json.loads(out)
    return answer


@pytest.mark.req("SEC-01", part="move")
@pytest.mark.req("SEC-16")
@pytest.mark.req("SEC-17")
@pytest.mark.req("SEC-18")
@pytest.mark.req("DEL-18")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("provider", [Provider.DB, Provider.AWS, Provider.GCP, Provider.OPENBAO])
async def test_every_door_opens_with_every_provider(
    provider: Provider,
    where: str,
    pool: Pool,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """Plaintext migrates there, secrets move there; then a customer's program, commands and a worker use them."""
    here = await world(pool, database_url, redis_url, tmp_path)
    async with receiving() as receiver, variables_of(provider, where, tmp_path) as variables:
        settings = environment(database_url, redis_url, **variables)

        async def command(*arguments: str) -> dict[str, Any]:
            ended = await hookseal(*arguments, "--json", **settings)
            assert 0 == ended.code, ended.err
            foreign = [line for line in ended.err.splitlines() if not line.startswith("hookseal: ")]
            assert [] == foreign, "the client of a provider logs beside our own messages"
            return dict(ended.json)

        moved = (await here.endpoint(f"{receiver.base_url}/moved", tenant="globex")).secret
        await legacy(pool, tenant="initech", url=f"{receiver.base_url}/older")
        assert 1 == (await command("migrate-secrets"))["migrated"]
        done = await command("secret", "move", "--to", provider.value)
        assert (2, 0) == (done["moved"] + done["present"], done["failures"])

        answer = await customers_program(tmp_path, settings | {"RECEIVER_URL": f"{receiver.base_url}/admin"})
        of = ("--tenant", "acme", "--endpoint", answer["endpoint_id"])
        assert answer["secrets"][1] == (await command("secret", "reveal", *of, "--print-secret"))["secret"]
        url = f"{receiver.base_url}/command"
        await command("endpoint", "add", "--tenant", "acme", "--url", url, "--event-type", "*", "--print-secret")

        async with here.worker(**variables) as worker:
            await worker.answers("/readyz", 200)
            rings = [ring for tenant in ("acme", "globex", "initech") for ring in await here.publish(tenant)]
            await here.delivered(*rings)

    assert 4 == len(rings)
    requests = {each.path: each for each in receiver.received}
    for secret in answer["secrets"]:
        Webhook(secret).verify(requests["/admin"].body, requests["/admin"].headers)
    Webhook(moved.reveal().decode()).verify(requests["/moved"].body, requests["/moved"].headers)
    signed_by = [ref for ring in rings for each in await here.installation.attempts(ring) for ref in each["signed_by"]]
    assert {provider.value} == {ref.partition(":")[0] for ref in [answer["ref"], *signed_by]}
    kept = await pool.fetch("SELECT DISTINCT split_part(secret_ref, ':', 1) AS at FROM hookseal.endpoints")
    assert [provider.value] == [row["at"] for row in kept]
