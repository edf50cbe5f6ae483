"""Claims and pointers for tests, every field overridable."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hookseal.dispatcher.model import Claim, Ring, Target
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.pointer import Pointer

ENDPOINT = EndpointId("01900000-0000-7000-8000-000000000001")
DELIVERY = DeliveryId("01900000-0000-7000-8000-00000000000a")
RING = Ring(tenant_id=TenantId("acme"), endpoint_id=ENDPOINT, delivery_id=DELIVERY)
POINTER = Pointer(
    tenant_id=TenantId("acme"),
    endpoint_id=ENDPOINT,
    url="https://receiver.example/hook?token=abc",
    scheme="standard",
    algorithm="hmac",
    secret_ref=f"db:acme:webhook-endpoint-{ENDPOINT}:1",
    previous_secret_ref=None,
    previous_secret_expires_at=None,
    previous_due=False,
    lead="previous",
    generation=1,
    mac=b"\x00" * 32,
    mac_key_id="1",
)
TARGET = Target(pointer=POINTER, enabled=True, timeout_ms=5000)
CLAIM = Claim(
    ring=RING,
    event_id=EventId("evt_1"),
    event_type="invoice.paid",
    correlation_id="corr-1",
    traceparent=None,
    body=b'{"type":"invoice.paid"}',
    number=1,
    claimed_at=datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC),
    lease_token="00000000-0000-4000-8000-000000000000",
    target=TARGET,
)


def claim(**changes: Any) -> Claim:
    """Return the claim with these fields changed."""
    return replace(CLAIM, **changes)


def target(*, enabled: bool = True, **pointer: Any) -> Target:
    """Return the target with these pointer fields changed."""
    return Target(pointer=replace(POINTER, **pointer), enabled=enabled, timeout_ms=5000)
