"""Objects that contain a secret neither show it nor pass it on."""

import copy
import pickle
from collections.abc import Callable

import pytest
import structlog

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.worker.resources import opened
from tests.dispatcher.http.test_transport import request_to
from tests.doubles.replaced import replace
from tests.worker.canary import search
from tests.worker.environment import settings
from tests.worker.leaking import ACME, HMAC, NEWER, OWN, all_canaries
from tests.worker.world import World


@pytest.mark.req("SEC-15")
async def test_no_object_of_a_worker_shows_a_secret(world: World) -> None:
    """Objects of a worker and of a command are shown, formatted, copied and pickled without their secrets."""
    added = await world.installation.add(
        NewEndpoint(tenant_id=ACME, url="https://receiver.example/x", event_types=("*",)), HMAC, headers=OWN
    )
    known = await all_canaries(world.installation, world.database_url, world.redis_url)
    asked = settings(world.database_url, world.redis_url)
    pointer = added.pointer
    wanted = RotationRequest(
        tenant_id=ACME, endpoint_id=EndpointId(pointer.endpoint_id), overlap_seconds=9, secret=NEWER, given=True
    )
    async with opened(asked, SystemClock(), structlog.get_logger()) as resources, world.pool.acquire() as connection:
        service = resources.unlocked.service
        operator = world.installation.operator(connection)
        async with service.signers(pointer) as signers, service.headers(pointer) as values:
            request = replace(request_to("https://receiver.example/x"), sealed_headers=values)
            rotated = await rotate_secret(operator, wanted)
            parts = [resources, resources.parts, resources.unlocked, resources.keyring, service, service._reader]
            parts += [service._reader._cache, resources.unlocked.integrity, operator, asked, asked.secrets]
            parts += [asked.database, asked.redis, added, wanted, rotated, request, values, *signers, *values.values()]
            shown = {f"{number} {type(part).__name__}": shown_by(part) for number, part in enumerate(parts)}

    assert [] == search(shown, known)
    [of_wanted] = [value for name, value in shown.items() if name.endswith(" RotationRequest")]
    assert b"SecretMaterial([masked])" in of_wanted


def shown_by(part: object) -> bytes:
    """Return everything that an object reveals: shown, formatted, logged, and pickled or copied if it allows that."""
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
    texts = []
    for way in ways:
        try:
            found = way(part)
        except Exception as refusal:  # noqa: BLE001 -- the error is searched as well
            found = refusal
        texts.append(found if isinstance(found, bytes) else repr(found).encode())
    return b"\n".join(texts)
