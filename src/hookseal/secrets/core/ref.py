"""The reference `{provider}:{tenant}:{name}:{version}` of a secret version, and the context of a sealed record.

Rows name a secret by its reference. A sealed record is bound to its context, so that it opens nowhere else.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from hookseal.errors import Malformed
from hookseal.ground.ids import RESERVED_TENANTS, SYSTEM_TENANT, EndpointId, TenantId, tenant_id
from hookseal.ground.wire import framed

MAX_BYTES: Final = 512
MAX_VERSION: Final = 2**63 - 1

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}")
_PARTS: Final = 4

Part = Literal["provider", "tenant", "name", "version", "length", "shape"]
_LABEL: Final = b"hookseal.secret.context.v1"


class Provider(StrEnum):
    """Where the material of a secret is stored."""

    DB = "db"
    AWS = "aws"
    GCP = "gcp"
    OPENBAO = "openbao"
    DEV = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRef:
    """One version of one secret of one tenant. `str` returns its only spelling.

    The constructor allows reserved tenants; `parse` refuses `_system` by default, whose secrets no row names. Raises
    `Malformed` if a part is malformed.
    """

    provider: Provider
    tenant: TenantId
    name: str
    version: int

    def __post_init__(self) -> None:
        if self.tenant not in RESERVED_TENANTS:
            _require_tenant(self.tenant)
        if not _NAME.fullmatch(self.name):
            raise _malformed("name", "1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'")
        if not 1 <= self.version <= MAX_VERSION:
            raise _malformed("version", "a positive integer below 2^63")

    def __str__(self) -> str:
        return f"{self.provider}:{self.tenant}:{self.name}:{self.version}"

    @classmethod
    def parse(cls, text: str, *, reserved: bool = False) -> "SecretRef":
        """Return the reference of a text. The tenant `_system` is allowed only if `reserved`.

        Raises `Malformed`, which names the part that is wrong and never its value.
        """
        if len(text) > MAX_BYTES:
            raise _malformed("length", f"at most {MAX_BYTES} bytes")
        parts = text.split(":")
        if len(parts) != _PARTS:
            raise _malformed("shape", "{provider}:{tenant}:{name}:{version}")
        provider, tenant, name, version = parts
        if provider not in tuple(Provider):
            raise _malformed("provider", "one of " + ", ".join(Provider))
        if tenant == SYSTEM_TENANT and not reserved:
            raise _malformed("tenant", "a tenant that is not reserved")
        if not _VERSION.fullmatch(version):
            raise _malformed("version", "a positive integer below 2^63 without leading zeros")
        return cls(provider=Provider(provider), tenant=TenantId(tenant), name=name, version=int(version))


def endpoint_secret_name(endpoint_id: EndpointId) -> str:
    """Return the name of the signing secret of an endpoint."""
    return f"webhook-endpoint-{endpoint_id}"


def endpoint_headers_name(endpoint_id: EndpointId) -> str:
    """Return the name of the secret with the header values of an endpoint."""
    return f"endpoint-headers-{endpoint_id}"


def endpoint_tls_name(endpoint_id: EndpointId) -> str:
    """Return the name of the secret with the TLS identity of an endpoint."""
    return f"endpoint-tls-{endpoint_id}"


def _require_tenant(tenant: str) -> None:
    try:
        tenant_id(tenant)
    except Malformed:
        raise _malformed("tenant", "a tenant id") from None


def _malformed(part: Part, expected: str) -> Malformed:
    return Malformed(f"secret ref: its {part} must be {expected}", field="secret_ref")


class Purpose(StrEnum):
    """What a secret is for. A secret is never used for another purpose."""

    WEBHOOK_SIGNING = "webhook-signing"
    ENDPOINT_HEADERS = "endpoint-headers"
    ENDPOINT_TLS = "endpoint-tls"
    INTEGRITY = "integrity"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretContext:
    """The tenant, name, version and purpose to which a sealed record is bound."""

    tenant: TenantId
    name: str
    version: int
    purpose: Purpose

    @classmethod
    def of(cls, ref: SecretRef, purpose: Purpose) -> "SecretContext":
        """Return the context of the reference. It has no provider, so that records may move to another one."""
        return cls(tenant=ref.tenant, name=ref.name, version=ref.version, purpose=purpose)

    def encode(self) -> bytes:
        """Return an unambiguous encoding: no other context has these bytes."""
        return framed(
            _LABEL,
            self.tenant.encode(),
            self.name.encode(),
            self.version.to_bytes(8, "big"),
            self.purpose.encode(),
        )
