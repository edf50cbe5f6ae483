"""Results about tenants, and the producers that may publish for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hookseal.admin.results.status import TenantBacklog


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedProducer:
    """The right of a database role to publish for a tenant. `changed`: it did not have it before."""

    role: str
    tenant_id: str
    granted_at: datetime
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedProducer:
    """A right that was revoked. `left_to_run` is a statement for a role with more rights, None if none is left.

    `still_for_every_tenant`: the role may publish for this tenant nevertheless, because it may for every one.
    """

    role: str
    tenant_id: str
    left_to_run: str | None
    still_for_every_tenant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """The right of a role to publish for a tenant. It is `stale`, and no right, if its role was dropped."""

    role: str
    tenant_id: str
    granted_at: datetime
    role_exists: bool
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant. `uid` and `name` are what the product calls it, None if it said nothing, as of one that was not added.

    Such a tenant is known by its first endpoint, which was made at `created_at`. Only a list that was asked for it has
    the `backlog`.
    """

    tenant_id: str
    uid: str | None
    name: str | None
    metadata: Mapping[str, str] = field(repr=False)
    created_at: datetime
    updated_at: datetime
    backlog: TenantBacklog | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedTenant:
    """How many endpoints were deleted, pending deliveries cancelled and tokens revoked with a tenant."""

    tenant_id: str
    endpoints: int
    cancelled: int
    tokens: int
