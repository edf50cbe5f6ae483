"""The context of a secret: what a sealed record is bound to, so that it opens nowhere else."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hookseal.ground.framing import framed
from hookseal.ground.ids import TenantId
from hookseal.secrets.ref import SecretRef

_LABEL: Final = b"hookseal.secret.context.v1"


class Purpose(StrEnum):
    """What a secret is for. A secret made for one purpose is not given out for another."""

    WEBHOOK_SIGNING = "webhook-signing"
    ENDPOINT_HEADERS = "endpoint-headers"
    ENDPOINT_TLS = "endpoint-tls"
    INTEGRITY = "integrity"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretContext:
    """Whose secret this is, under which name and version, and what for."""

    tenant: TenantId
    name: str
    version: int
    purpose: Purpose

    @classmethod
    def of(cls, ref: SecretRef, purpose: Purpose) -> "SecretContext":
        """Return the context of what the reference names. The provider is no part of it: records may move."""
        return cls(tenant=ref.tenant, name=ref.name, version=ref.version, purpose=purpose)

    def encode(self) -> bytes:
        """Return bytes that no other context has."""
        return framed(
            _LABEL,
            self.tenant.encode(),
            self.name.encode(),
            self.version.to_bytes(8, "big"),
            self.purpose.encode(),
        )
