"""What holds a secret in a process shows nothing of it, and hands nothing of it on."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId
from hookseal.operations.rotation import rotate
from hookseal.secrets.rotation import Wanted
from hookseal.worker.resources import opened
from tests.dispatcher.test_transport import request_to
from tests.worker.canary import search
from tests.worker.environment import settings
from tests.worker.leaking import ACME, HMAC, NEWER, OWN, all_canaries
from tests.worker.world import World


@pytest.mark.req("SEC-15")
async def test_no_part_of_a_worker_shows_itself(world: World) -> None:
    """Whatever holds a secret is shown, formatted, copied and pickled without it, in a worker and in a command."""
    added = await world.installation.add(
        NewEndpoint(tenant_id=ACME, url="https://receiver.example/x", event_types=("*",)), HMAC, headers=OWN
    )
    known = await all_canaries(world.installation, world.database_url, world.redis_url)
    asked = settings(world.database_url, world.redis_url)
    pointer = added.pointer
    wanted = Wanted(
        tenant_id=ACME, endpoint_id=EndpointId(pointer.endpoint_id), overlap_seconds=9, secret=NEWER, given=True
    )
    async with opened(asked, SystemClock(), structlog.get_logger()) as resources, world.pool.acquire() as connection:
        service = resources.unlocked.service
        operator = world.installation.operator(connection)
        async with service.signers(pointer) as signers, service.headers(pointer) as values:
            request = replace(request_to("https://receiver.example/x"), sealed_headers=values)
            rotated = await rotate(operator, wanted)
            parts = [resources, resources.parts, resources.unlocked, resources.keyring, service, service._reader]
            parts += [service._reader._cache, resources.unlocked.integrity, operator, asked, asked.secrets]
            parts += [asked.database, asked.redis, added, wanted, rotated, request, values, *signers, *values.values()]
            shown = {f"{number} {type(part).__name__}": told(part) for number, part in enumerate(parts)}

    assert [] == search(shown, known)
    [of_wanted] = [value for name, value in shown.items() if name.endswith(" Wanted")]
    assert b"SecretMaterial([masked])" in of_wanted


def told(part: object) -> bytes:
    """Return all that an object tells of itself: shown, formatted, logged, and pickled or copied if it lets anybody."""
    ways: tuple[Callable[[object], object], ...] = (
        repr,
        str,
        format,
        "{!r:.500}".format,
        "%s".__mod__,
        ascii,
        pickle.dumps,
        copy.copy,
        vars,
        lambda value: structlog.processors.JSONRenderer(default=repr)(None, "info", {"event": value}),
    )
    said = []
    for way in ways:
        try:
            found = way(part)
        except Exception as refusal:  # noqa: BLE001 -- whoever refuses tells why, which is searched as well
            found = refusal
        said.append(found if isinstance(found, bytes) else repr(found).encode())
    return b"\n".join(said)
