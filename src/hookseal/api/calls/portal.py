"""Access for the customers of a product: tokens of portals, with links to pages, and their end.

A product makes them with a token for every tenant. So no portal can make one, or end those of others.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal

from hookseal.admin import PORTAL_SCOPES, PORTAL_SECONDS, Scope
from hookseal.api.access import require_scopes
from hookseal.api.call import Asked, Call, In, NoQuery, Out, manage
from hookseal.api.problems import Problem, invalid
from hookseal.errors import NotFound

# What a portal may do, in the words of Svix.
Capability = Literal[
    "ViewBase",
    "ViewEndpointSecret",
    "ManageEndpointSecret",
    "ManageTransformations",
    "CreateAttempts",
    "ManageEndpoint",
]
_SCOPES: Final[Mapping[str, frozenset[Scope]]] = {
    "ViewBase": frozenset({Scope.READ}),
    "ViewEndpointSecret": frozenset({Scope.REVEAL}),
    "ManageEndpointSecret": frozenset({Scope.MANAGE, Scope.REVEAL}),
    "CreateAttempts": frozenset({Scope.OPERATE}),
    "ManageEndpoint": frozenset({Scope.MANAGE}),
}
_ONLY_READS: Final = frozenset({Scope.READ, Scope.REVEAL})


class AppPortalAccessIn(In):
    """What to let a customer do, and for how long. `user` and `refreshUrl` are not of Svix."""

    application: None = None
    capabilities: list[Capability] | None = None
    expiry: int | None = None
    feature_flags: None = None
    read_only: bool | None = None
    session_id: str | None = None
    user: str | None = None
    refresh_url: str | None = None


class AppPortalAccessOut(Out):
    """A token, and the link to the pages, which is empty if this server has none."""

    url: str
    token: str


class ApplicationTokenExpireIn(In):
    """In how many seconds the tokens end, and of which sessions."""

    expiry: int | None = None
    session_ids: list[str] | None = None


async def app_portal_access(asked: Asked[NoQuery, AppPortalAccessIn]) -> AppPortalAccessOut:
    """Make the token of a portal, and a link to the pages that works once, within ten minutes."""
    body, own = asked.body, asked.access
    wanted = scopes_of(body, own.scopes)
    require_scopes(own, wanted)
    made = await asked.admin.portal.add(
        tenant_id=asked.tenant,
        scopes=sorted(wanted),
        user=body.user,
        session_id=body.session_id,
        refresh_url=body.refresh_url,
        expiry_seconds=PORTAL_SECONDS if body.expiry is None else body.expiry,
        not_after=own.expires_at,
        actor=own.actor,
    )
    link = "" if made.url is None else made.url.reveal().decode()
    return AppPortalAccessOut(url=link, token=made.token.reveal().decode())


def scopes_of(body: AppPortalAccessIn, own: frozenset[Scope]) -> frozenset[Scope]:
    """Return the scopes that were asked for, by default those of a portal which the own access has.

    Raises `Problem` for capabilities that no scopes are. Pure.
    """
    if body.capabilities is None:
        wanted = own.intersection(PORTAL_SCOPES) | {Scope.READ}
    else:
        wanted = _of_capabilities(frozenset(body.capabilities))
    return wanted & _ONLY_READS if body.read_only else wanted


def _of_capabilities(given: frozenset[Capability]) -> frozenset[Scope]:
    where = ("body", "capabilities")
    if "ManageTransformations" in given:
        raise invalid(where, "ManageTransformations is not supported: there are no transformations", "not_supported")
    if "ManageEndpointSecret" in given and "ManageEndpoint" not in given:
        why = "ManageEndpointSecret is not supported without ManageEndpoint: both are the scope manage"
        raise invalid(where, why, "not_supported")
    if "ViewBase" not in given:
        raise invalid(where, "must have ViewBase")
    return frozenset(scope for each in given for scope in _SCOPES[each])


async def logout(asked: Asked[NoQuery, None]) -> None:
    """End the token of a portal with which this is asked, and no other one."""
    if not asked.access.is_portal or asked.access.token is None:
        raise Problem(403, "insufficient_access", "only the token of a portal can log out")
    with suppress(NotFound):  # it has ended meanwhile
        await asked.admin.tokens.revoke(name=asked.access.token, actor=asked.access.actor)


async def expire_all(asked: Asked[NoQuery, ApplicationTokenExpireIn]) -> None:
    """End the tokens of the portals of an application, now or in some seconds; with `sessionIds` only these."""
    await asked.admin.portal.expire_all(
        tenant_id=asked.tenant,
        session_ids=asked.body.session_ids or (),
        after_seconds=asked.body.expiry or 0,
        actor=asked.access.actor,
    )


_AUTH: Final = "/api/v1/auth"
CALLS: Final[tuple[Call, ...]] = (
    manage(
        *("authentication.app_portal_access", "POST", _AUTH + "/app-portal-access/{app_id}", app_portal_access),
        body=AppPortalAccessIn,
        result=AppPortalAccessOut,
        names={"expiry_seconds": "expiry"},
        of_every_tenant=True,
    ),
    manage(
        *("authentication.expire_all", "POST", _AUTH + "/app/{app_id}/expire-all", expire_all),
        body=ApplicationTokenExpireIn,
        names={"after_seconds": "expiry"},
        status=204,
        of_every_tenant=True,
    ),
    Call(
        name="authentication.logout",
        method="POST",
        path=_AUTH + "/logout",
        scopes=frozenset({Scope.READ}),
        handler=logout,
        status=204,
    ),
)
