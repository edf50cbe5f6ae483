"""Who asks, and what that allows. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from hookseal.admin import Scope, Token
from hookseal.api.problems import Problem, absent, invalid
from hookseal.ground import ids

_BEARER: Final = re.compile(r"[Bb]earer +([!-~]{1,512})")
_USER: Final = ("header", "hookseal-user")
MOST_ACTOR_CHARACTERS: Final = 128  # of the audit log


ALL: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a request may do: for one tenant, or with None for every tenant. The audit log gets `actor`.

    It ends at `expires_at`, None if it has no end, and no token that is made with it lasts longer. `token` is the name
    of its token, if it has one, which may be that of a portal. Raises `ValueError` for a text that can be no tenant,
    such as that of a user who has none.
    """

    tenant_id: str | None
    scopes: frozenset[Scope]
    actor: str
    expires_at: datetime | None = None
    token: str | None = None
    is_portal: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` unless the access is for a tenant, or for every one."""
        if self.tenant_id is not None and not ids.may_be_tenant(self.tenant_id):
            raise ValueError("tenant_id must be the id of a tenant, or None for every tenant")

    @property
    def may_reveal(self) -> bool:
        """Whether it may see secrets, and so also send the headers of an endpoint to an address of its choice."""
        return Scope.REVEAL in self.scopes

    @property
    def caller(self) -> tuple[str | None, str]:
        """Whose requests are counted together: those with one token, or of one actor without one."""
        return self.tenant_id, self.token or self.actor


NOBODY: Final = Access(tenant_id=None, scopes=frozenset(), actor="-")  # asks what everybody may know


def bearer(authorization: str | None) -> str | None:
    """Return the token of the header `Authorization`; None if it has none."""
    found = None if authorization is None else _BEARER.fullmatch(authorization.strip())
    return None if found is None else found[1]


def actor_of_token(name: str, user: str | None) -> str:
    """Return the name for the audit log: `token:NAME`, or `token:NAME/USER` if the request names its user.

    Raises `Problem` unless the user has 1 to 64 visible ASCII characters, with spaces between them, and the actor at
    most 128.
    """
    actor = ids.token_actor(name, user)
    if user is not None and not (ids.may_be_user(user) and len(actor) <= MOST_ACTOR_CHARACTERS):
        raise invalid(_USER, "must be 1 to 64 visible ASCII characters")
    return actor


def of_token(token: Token, user: str | None = None) -> Access:
    """Return what a token allows; `user` is the one that the request names.

    Raises `Problem` if the audit log cannot show that user. A portal names its user itself: the one who has its token
    might name any.
    """
    if token.portal and user is not None:
        raise invalid(_USER, "is not for the token of a portal, which has its user")
    return Access(
        tenant_id=None if token.tenant_id == ids.EVERY_TENANT else token.tenant_id,
        scopes=_scopes(token.scopes),
        actor=ids.token_actor(token.name, token.user) if token.portal else actor_of_token(token.name, user),
        expires_at=token.expires_at,
        token=token.name,
        is_portal=token.portal,
    )


@cache
def _scopes(names: tuple[str, ...]) -> frozenset[Scope]:
    return frozenset(map(Scope, names))


def require_scopes(access: Access, needed: frozenset[Scope]) -> None:
    """Raise `Problem` (403) unless the access has all of these scopes."""
    if missing := sorted(needed - access.scopes):
        raise Problem(403, "insufficient_access", f"this needs the scope {' and '.join(missing)}")


def require_every_tenant(access: Access) -> None:
    """Raise `Problem` (403) if the access is for one tenant."""
    if access.tenant_id is not None:
        raise Problem(403, "insufficient_access", "this concerns every tenant, and your access is for one")


def require_end(access: Access, expires_at: datetime | None) -> None:
    """Raise `Problem` (403) if what expires then, or never, would outlive the access."""
    if access.expires_at is not None and (expires_at is None or expires_at > access.expires_at):
        raise Problem(403, "insufficient_access", "your access expires, so a token needs an expiresAt before its end")


def require_tenant(access: Access, tenant_id: str) -> None:
    """Raise `Problem` (404) if the access is for another tenant: as if that one did not exist."""
    if access.tenant_id not in {None, tenant_id}:
        raise absent()
