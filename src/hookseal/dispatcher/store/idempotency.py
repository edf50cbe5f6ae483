"""Requests that their client may repeat: which one was the first with a key, and what it made."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from hookseal.errors import Conflict, Unavailable
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "idempotency.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """A request with a key. `tenant_id` (`*` for every tenant) and `actor` say whose key it is."""

    tenant_id: TenantId
    actor: str
    call: str
    key_digest: bytes = field(repr=False)
    fingerprint: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAnswer:
    """How the first request with a key was answered: the status, and the id of what it made."""

    status: int
    result_id: str


def keyed(key: str, content: bytes, *, tenant_id: TenantId, actor: str, call: str) -> KeyedRequest:
    """Return the request. Its fingerprint is made with the key, which is not stored, so it betrays no `content`."""
    text = key.encode()
    return KeyedRequest(
        tenant_id=tenant_id,
        actor=actor,
        call=call,
        key_digest=hashlib.sha256(text).digest(),
        fingerprint=hmac.digest(text, content, "sha256"),
    )


async def claim(connection: Connection, request: KeyedRequest) -> FirstAnswer | None:
    """Take the key in the caller's transaction, and return None. If an earlier request took it, return how that ended.

    It waits for a transaction in which the key was taken and which has not ended. Raises `Conflict` if the key was used
    for another call or other content, `Unavailable`, also after a wait as long as `lock_timeout`.
    """
    owner = (request.tenant_id, request.actor, request.key_digest)
    if await _SQL.value(connection, "claim", *owner, request.call, request.fingerprint):
        return None
    first = await _SQL.row(connection, "first", *owner)
    if first is None:  # it was removed meanwhile, 12 hours old
        raise Unavailable("the key was in use until now: try again")
    if (first["call"], first["fingerprint"]) != (request.call, request.fingerprint):
        raise Conflict("this key was used for a request with other content", field="idempotency_key")
    return FirstAnswer(status=first["status"], result_id=first["result_id"])


async def record(connection: Connection, request: KeyedRequest, answer: FirstAnswer) -> None:
    """Record the answer to the request, in the transaction that took its key. Raises `Unavailable`."""
    owner = (request.tenant_id, request.actor, request.key_digest)
    await _SQL.execute(connection, "record", *owner, answer.status, answer.result_id)
