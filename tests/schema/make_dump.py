"""Writes the rows of an installation, made by this version and its workers, for the versions after it.

To freeze the newest revision, run `python -m tests.schema.make_dump` in its last commit. It writes into `dumps/` the
rows (`NNNN.sql`), and what a test must know of them (`NNNN.json`): the digest of the migration, what the receiver of
each path verifies with, and a token of the HTTP API. From then on a change of the migration fails `test_upgrade.py`.
"""

import asyncio
import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import asyncpg

from hookseal import Admin
from hookseal.dispatcher.core.endpoint_settings import SETTINGS, EndpointSettings
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import postgres_tree
from hookseal.embedded.valkey import valkey
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.postgres.schema import revision
from hookseal.postgres.schema.upgrade import upgrade
from tests import rows
from tests.worker.environment import environment
from tests.worker.world import World, receiving, status, world

# The fields of each endpoint by the path of its url.
ENDPOINTS: Final[dict[str, dict[str, Any]]] = {
    "/standard": {"name": "billing", "concurrency": 8, "rate": 50},
    "/rotated": {"rotate_every_days": 14},
    "/ed25519": {"algorithm": Algorithm.ED25519},
    "/x-webhook": {"scheme": Scheme.X_WEBHOOK, "max_attempts": 3},
    "/svix": {"scheme": Scheme.SVIX, "uid": "crm-1", "description": "orders", "metadata": {"team": "red"}},
    "/of-a-channel": {"channels": ("red", "blue")},
    "/in-order": {"ordered": True},
    "/with-headers": {"header_names": ("x-api-key",)},
    "/of-globex": {"tenant": "globex"},
    "/failing": {"tenant": "globex", "max_attempts": 1},
}
DUMPS: Final = Path(__file__).with_name("dumps")
EVENTS: Final = 3  # of each tenant, delivered before and pending after; one more of acme has a channel
# What no call writes while everything works: the states of a failing endpoint, what other providers have left, and the
# right of a role that each server has.
_BY_STATEMENT: Final = """
INSERT INTO hookseal.producers (role_name, tenant_id, role)
VALUES ('hookseal_producer', 'globex', 'hookseal_producer'::regrole);
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, reason) VALUES ('globex', $1, 'a secret was refused');
INSERT INTO hookseal.lanes (tenant_id, endpoint_id) VALUES ('globex', $1);
INSERT INTO hookseal.operator_notices (tenant_id, endpoint_id, kind) VALUES ('globex', $1, 'endpoint.failing');
INSERT INTO hookseal.rotation_canaries (tenant_id, id, endpoint_id, generation, secret_ref, verdict)
VALUES ('globex', hookseal.uuid7(), $1, 1, 'db:globex:webhook-endpoint-' || $1::text || ':1', 'no_answer');
INSERT INTO hookseal.secret_leftovers (tenant_id, name, version, provider, why)
VALUES ('globex', 'n', 1, 'aws', 'burnt');
INSERT INTO hookseal.refused_outcomes
    (tenant_id, delivery_id, lease_token, state, retry_in_seconds, outcome, signed_by, worker, is_probe, is_untroubled,
     was_held, reason)
VALUES ('globex', hookseal.uuid7(), hookseal.uuid7(), 'delivered', 0, 'delivered', '{}', 'w', false, true, false, 'C')
"""


def digest(number: str) -> str:
    """Return the digest of the files of that migration."""
    scripts = files("hookseal.postgres.schema").joinpath("versions").iterdir()
    of = sorted(
        (each for each in scripts if each.name.startswith((f"{number}_", f"rev_{number}"))), key=lambda each: each.name
    )
    return hashlib.sha256(b"".join(each.read_bytes() for each in of)).hexdigest()


async def main() -> None:
    """Write both files, unless the revision is frozen."""
    path = DUMPS / revision.EXPECTED
    if path.with_suffix(".json").exists():
        raise SystemExit(f"{revision.EXPECTED} is frozen: make a migration of its own, or remove its dump first")
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as database, valkey(folder, durable=False) as redis:
            await upgrade(database.url)
            async with asyncpg.create_pool(database.url) as pool:
                known = await _fill(await world(pool, database.url, redis.url, folder))
            known = {"migration": digest(revision.EXPECTED), **known}
            path.with_suffix(".json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".sql").write_text(await _dumped(database.url), encoding="utf-8")


async def _fill(site: World) -> dict[str, Any]:
    made, secrets = dict[str, AddedEndpoint](), dict[str, str]()
    of_a_channel = NewEvent(tenant_id=TenantId("acme"), event_type="invoice.paid", channels=("blue",))
    async with receiving() as receiver:
        receiver.answers["/failing"] = status(500)
        for path, fields in ENDPOINTS.items():
            settings = {name: fields[name] for name in fields if name in SETTINGS}
            others = {name: fields[name] for name in fields if name not in {"tenant", *SETTINGS}}
            new = NewEndpoint(
                tenant_id=TenantId(fields.get("tenant", "acme")),
                url=receiver.base_url + path,
                event_types=("*",),
                settings=cast("EndpointSettings", settings),
                **others,
            )
            headers = dict.fromkeys(new.header_names, b"a value of acme")
            made[path] = added = await site.installation.add(new, headers=headers)
            secrets[path] = added.public_key or added.secret.reveal().decode()
        rotated = await site.rotate(made["/rotated"], overlap_seconds=7 * 86_400)
        assert rotated.secret is not None
        secrets["/rotated"] = rotated.secret.reveal().decode()
        async with site.worker():
            for tenant in ("acme", "globex"):
                for ring in [each for _ in range(EVENTS) for each in await site.publish(tenant)]:
                    is_failing = ring.endpoint_id == made["/failing"].pointer.endpoint_id
                    await site.state(ring, "dead_letter" if is_failing else "delivered")
            published = await publish_json(site.pool, of_a_channel, '{"n": 2}')
            await site.delivered(*published.deliveries)
    token = await _manage(site, made)
    for tenant in ("acme", "globex"):
        for _ in range(EVENTS):
            await site.publish(tenant, rung=False)
    await publish_json(site.pool, of_a_channel, '{"n": 3}')
    failing = made["/failing"].pointer.endpoint_id
    await rows.change(site.pool, "endpoints", failing, enabled=False)
    for statement in _BY_STATEMENT.split(";"):
        await site.pool.execute(statement.replace("$1", f"'{failing}'::uuid"))
    return {"secrets": secrets, "token": token}


async def _manage(site: World, made: dict[str, AddedEndpoint]) -> str:
    """Do once what an operator and a product do beside publishing; return the text of a token of the HTTP API."""
    actor = "ada@desk"
    of: dict[str, Any] = {"tenant_id": "acme", "actor": actor}
    async with Admin.connect(environ=environment(site.database_url, site.redis_url)) as admin:
        await admin.event_types.add(
            name="invoice.paid", description="A paid invoice", schemas='{"1": {"type": "object"}}', actor=actor
        )
        await admin.tenants.update(**of, name="Acme", metadata={"crm": "42"})
        await admin.portal.add(**of, user="jane")
        moved = made["/standard"].pointer
        await admin.endpoints.update(**of, endpoint_id=moved.endpoint_id, url=moved.url + "?moved")
        await admin.replays.start(tenant_id="globex", actor=actor)  # of what has failed; its endpoint is disabled later
        async with admin.once(**of, idempotency_key="k-1", call="endpoint.create", content=b"{}") as once:
            await once.record(status=201, result_id=moved.endpoint_id)
        token = await admin.tokens.add(**of, name="ci")
    return token.token.reveal().decode()


async def _dumped(url: str) -> str:
    parts = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(str(postgres_tree() / "bin" / "pg_dump"), "-h", str(parts.hostname), "-p", str(parts.port)),
        *("-U", str(parts.username), "--data-only", "--column-inserts", "--rows-per-insert=100", "--schema=hookseal"),
        *("--exclude-table=hookseal.alembic_version", "--exclude-table=hookseal.workers"),
        parts.path.removeprefix("/"),
        env={**os.environ, "PGPASSWORD": str(parts.password)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    lines = out.decode().splitlines()
    # Neither what only psql reads, nor what only this version of PostgreSQL knows.
    kept = [
        line for line in lines if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))
    ]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    asyncio.run(main())
