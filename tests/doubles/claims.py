"""Claims and pointers for tests, every field overridable."""

from datetime import UTC, datetime
from typing import Any

from hookseal.dispatcher.core.model import Claim, Retries, Ring, Target
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.pointer import Pointer
from tests.doubles.replaced import replace

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
    previous_scheme=None,
    previous_algorithm=None,
    previous_due=False,
    headers_ref=None,
    lead="previous",
    generation=1,
    mac=b"\x00" * 32,
    mac_key_id="1",
    cache_epoch=0,
    restore_epoch=0,
    read_at=datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC),
    audited_generation=1,
)
RETRIES = Retries(attempts_allowed=10, backoff_base_seconds=30, backoff_cap_seconds=43_200, schedule=None)
TARGET = Target(pointer=POINTER, enabled=True, timeout_ms=5000, retries=RETRIES)
CLAIM = Claim(
    ring=RING,
    event_id=EventId("evt.1:a"),
    event_type="invoice.paid",
    correlation_id="corr-1",
    traceparent=None,
    body=b'{"type":"invoice.paid"}',
    number=1,
    budget_spent=0,
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    claimed_at=datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC),
    lease_token="00000000-0000-4000-8000-000000000000",
    target=TARGET,
)


def claim(**changes: Any) -> Claim:
    """Return the claim with these fields changed."""
    return replace(CLAIM, **changes)


def target(*, enabled: bool = True, retries: Retries = RETRIES, **pointer: Any) -> Target:
    """Return the target with these pointer fields changed."""
    return replace(TARGET, pointer=replace(POINTER, **pointer), enabled=enabled, retries=retries)


def overlapping(scheme: str, previous_scheme: str, *, lead: str = "previous") -> Target:
    """Return the target in an overlap of two secrets that were made for these schemes."""
    return target(
        scheme=scheme,
        secret_ref=f"db:acme:webhook-endpoint-{ENDPOINT}:2",
        previous_secret_ref=f"db:acme:webhook-endpoint-{ENDPOINT}:1",
        previous_secret_expires_at=datetime(2026, 1, 3, 3, 4, 5, tzinfo=UTC),
        previous_scheme=previous_scheme,
        previous_algorithm="hmac",
        previous_due=True,
        lead=lead,
        generation=2,
    )
