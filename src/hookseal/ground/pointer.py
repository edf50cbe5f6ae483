"""The pointer: what an endpoint row says of where requests go and which secrets sign them.

The dispatcher reads it with each claim and hands it on unread; the secrets room checks its MAC and
resolves its refs. Neither knows the other.
"""

from dataclasses import dataclass
from datetime import datetime

from hookseal.ground.ids import EndpointId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """The pointer columns of one endpoint row, as text, exactly as they stand in PostgreSQL.

    `scheme` and `algorithm` are those of the current secret; the previous one has its own. `previous_due`
    is the database's own answer, in the statement that read the row, to whether the overlap still runs.
    `headers_ref` names the sealed values of the headers that its requests carry beside ours, `tls_ref` the sealed
    client certificate and authorities with which its receiver is spoken to.
    `cache_epoch` was read in the same statement: what was cached under an older one must not be used (below zero it is
    not known, so nothing is). So was
    `audited_generation`, the highest that the audit log has of this endpoint (None: none), and `restore_epoch`:
    a generation that was seen under an older one says nothing any more. `read_at` is the database's time of it, and
    `database` tells it from others: another number is another server, one that was restarted, or restored tables, whose
    version numbers may mean other secrets.
    `mac` covers every field but `previous_due`, `mac`, `mac_key_id` and those that come from other tables; without
    a previous ref it leaves out `previous_scheme` and `previous_algorithm` too, which then mean nothing.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    url: str
    scheme: str
    algorithm: str
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    previous_scheme: str | None
    previous_algorithm: str | None
    previous_due: bool
    headers_ref: str | None
    lead: str
    generation: int
    mac: bytes | None
    mac_key_id: str | None
    cache_epoch: int
    restore_epoch: int
    read_at: datetime
    audited_generation: int | None
    database: int = 0
    tls_ref: str | None = None
