"""Adds and revokes tokens of the HTTP API, audited in the log of the tenant, or of the installation for `*`."""

from typing import Any

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import tokens
from hookseal.dispatcher.store.tokens import NewToken
from hookseal.ground.ids import EVERY_TENANT, SYSTEM_TENANT, TenantId
from hookseal.operations.operator import Operator


async def add_token(operator: Operator, token: NewToken) -> dict[str, Any]:
    """Store the token. Raises `Conflict` if one of this name is in use, `Malformed` if it would have expired already.

    Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        added = await tokens.add(connection, token)
        await operator.audit(
            Action.TOKEN_ADDED, of=f"token:{token.name}", tenant=_audited_for(token.tenant_id), after=_facts(added)
        )
    return added


async def revoke_token(operator: Operator, name: str) -> dict[str, Any]:
    """Revoke the token: it is refused from the next request on. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        revoked = await tokens.revoke(connection, name)
        await operator.audit(
            Action.TOKEN_REVOKED, of=f"token:{name}", tenant=_audited_for(revoked["tenant_id"]), before=_facts(revoked)
        )
    return revoked


def _audited_for(tenant: TenantId) -> TenantId:
    return SYSTEM_TENANT if tenant == EVERY_TENANT else tenant


def _facts(token: dict[str, Any]) -> dict[str, object]:
    return {name: token[name] for name in ("token_id", "tenant_id", "scopes", "expires_at")}
