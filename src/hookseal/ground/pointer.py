"""The pointer: the columns of an endpoint row that say where requests go and which secrets sign them.

The dispatcher reads it with each claim and passes it on unchanged; the secrets package verifies its MAC and
resolves its secret refs. Neither package imports the other.
"""

from datetime import datetime

import msgspec

from hookseal.ground.ids import EndpointId, TenantId


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """The pointer columns of one endpoint row, as text, exactly as PostgreSQL returns them.

    `scheme` and `algorithm` belong to the current secret; the previous secret has its own. `previous_due` says whether
    the overlap was still running, by the database's clock, when the statement read the row. `headers_ref` refers to the
    sealed values of the endpoint's extra headers, `tls_ref` to the sealed client certificate and certificate
    authorities for the connection to its receiver.

    The statement that reads the row reads these from other tables:
    - `cache_epoch`: secrets that were cached under an older epoch must not be used. Below zero the epoch is unknown,
      and no cached secret may be used.
    - `audited_generation`: the highest generation of the endpoint in the audit log, None if there is none.
    - `restore_epoch`: a generation that was recorded under an older epoch proves nothing any more.
    - `read_at`: the time of the database.
    - `database`: identifies the server. Another server, a restarted server and restored tables have another number, and
      their version numbers may mean other secrets.

    `mac` covers every field except `previous_due`, `mac`, `mac_key_id` and those from other tables. The statements that
    read a pointer share their columns in `pointer.sql`.
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
