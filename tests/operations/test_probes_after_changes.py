"""Every change that may make a refused secret available probes the held deliveries, in its own transaction."""

from collections.abc import Awaitable, Callable

import pytest

from hookseal.dispatcher.core.model import State, Verdict, WaitingFor
from hookseal.dispatcher.core.policy import Wait
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.restore import accept_restore
from hookseal.operations.secret import clear_caches
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.dispatcher.test_ledger import ROW
from tests.doubles.stored import Installation

ACME = TenantId("acme")
REFUSED = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="the record was altered")
Change = Callable[[Operator, EndpointId], Awaitable[object]]


async def rotate(operator: Operator, endpoint: EndpointId) -> object:
    secret = generate_signing_secret()
    request = RotationRequest(tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=3600, secret=secret, force=True)
    return await rotation.rotate_secret(operator, request)


async def roll_back(operator: Operator, endpoint: EndpointId) -> object:
    return await rotation.roll_back(operator, tenant=ACME, endpoint_id=endpoint, overlap_seconds=3600)


async def end_overlap(operator: Operator, endpoint: EndpointId) -> object:
    return await rotation.end_overlap(operator, tenant=ACME, endpoint_id=endpoint)


async def update(operator: Operator, endpoint: EndpointId) -> object:
    """Change the url."""
    wanted = {"url": "https://receiver.example/moved"}
    return await update_endpoint(operator, ACME, endpoint, wanted, own_drain_seconds=25)


async def clear(operator: Operator, _endpoint: EndpointId) -> object:
    return await clear_caches(operator)


async def accept(operator: Operator, _endpoint: EndpointId) -> object:
    return await accept_restore(operator, ())


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize("change", [rotate, roll_back, end_overlap, update, clear, accept])
async def test_each_change_probes_held_deliveries(installation: Installation, change: Change) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        await rotate(operator, endpoint)
        rings = [(await installation.deliveries())[0] for _ in range(3)]
        ledger = installation.ledger()
        for ring in rings:
            await ledger.release(await installation.claim(ring), REFUSED)
        transaction = connection.transaction()
        await transaction.start()
        await change(operator, endpoint)
        await transaction.rollback()
        await installation.settle()
        assert ["secret"] * 3 == [(await installation.delivery(ring))["waiting_for"] for ring in rings]

        await change(operator, endpoint)
    await installation.settle()
    assert [None, "secret", "secret"] == [(await installation.delivery(ring))["waiting_for"] for ring in rings]
    await ledger.record(await installation.claim(rings[0]), ROW, Verdict(state=State.DELIVERED), None)
    await installation.settle()

    assert [None] * 3 == [(await installation.delivery(ring))["waiting_for"] for ring in rings]
    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")
