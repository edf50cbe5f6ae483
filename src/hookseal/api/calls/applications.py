"""Applications: the customers of a product, which hookseal calls tenants. An application need not be created."""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from hookseal.admin import Tenant
from hookseal.api.call import APP, Answer, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.forms import AppName, AppUid
from hookseal.api.paging import ListOut, OfApplications, Ordered, following, one_way
from hookseal.errors import Conflict, NotFound


class ApplicationIn(In):
    """An application to create, or all that may be set of one."""

    name: AppName
    uid: AppUid | None = None
    metadata: dict[str, str] | None = None
    throttle_rate: None = None
    rate_limit: None = None  # which older clients send as null


class ApplicationPatch(In):
    """What to change of an application; null removes."""

    name: AppName | UnsetType = UNSET
    uid: AppUid | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    throttle_rate: UnsetType | None = UNSET
    rate_limit: UnsetType | None = UNSET


class ApplicationOut(Out):
    """An application."""

    id: str
    uid: str | None
    name: str
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    throttle_rate: None = None
    rate_limit: None = None


class Applications(Ordered):
    """Which applications a list has."""

    iterator: OfApplications | None = None


class Creating(In):
    """Whether one that exists already is the answer."""

    get_if_exists: bool = msgspec.field(name="get_if_exists", default=False)


def shown(tenant: Tenant) -> ApplicationOut:
    """Return a tenant as Svix shows it. One without a name is named by its id."""
    return ApplicationOut(
        id=tenant.tenant_id,
        uid=tenant.uid,
        name=tenant.name or tenant.tenant_id,
        metadata=dict(tenant.metadata),
        created_at=tenant.created_at,
        updated_at=tenant.updated_at,
    )


async def listing(asked: Asked[Applications, None]) -> ListOut[ApplicationOut]:
    """List the applications, the newest first; with an access for one of them, that one."""
    after = following(asked.query.iterator)
    if asked.access.tenant_id is not None:
        return await _own(asked, asked.access.tenant_id)
    page = await asked.admin.tenants.list(
        limit=asked.query.limit, after=after, oldest_first=asked.query.order == "ascending"
    )
    ids = [each.tenant_id for each in page.items]
    return one_way([shown(each) for each in page.items], ids, done=page.next_cursor is None)


async def _own(asked: Asked[Applications, None], tenant_id: str) -> ListOut[ApplicationOut]:
    try:
        own = [shown(await asked.admin.tenants.get(tenant_id=tenant_id))]
    except NotFound:
        own = []
    own = [] if asked.query.iterator is not None else own
    return one_way(own, [each.id for each in own], done=True)


async def create(asked: Asked[Creating, ApplicationIn]) -> ApplicationOut | Answer:
    """Create an application. Its id is its `uid` if that can be an id, else a new one."""
    uid = asked.body.uid
    try:
        return await _added(asked, uid=uid)
    except Conflict:
        if not asked.query.get_if_exists or uid is None:
            raise
        return Answer(status=200, content=await by_id(asked, uid))


async def _added(asked: Asked[Any, ApplicationIn], *, uid: str | None) -> ApplicationOut:
    body = asked.body
    added = await asked.admin.tenants.add(
        uid=uid, name=body.name, metadata=body.metadata or {}, actor=asked.access.actor
    )
    return shown(added)


async def by_id(asked: Asked[Any, Any], tenant_id: str) -> ApplicationOut:
    """Return the application with this id or uid. Raises `NotFound`."""
    return shown(await asked.admin.tenants.get(tenant_id=tenant_id))


async def get(asked: Asked[NoQuery, Any]) -> ApplicationOut:
    """Return an application, by its id or its uid."""
    return await by_id(asked, asked.tenant)


async def upsert(asked: Asked[NoQuery, ApplicationIn]) -> ApplicationOut | Answer:
    """Set name, uid and metadata of an application. If there is none with this id or uid, create it."""
    body, name = asked.body, asked.path["app_id"]
    try:
        tenant = await asked.admin.tenants.get(tenant_id=name)
    except NotFound:
        if body.uid not in {None, name}:
            raise
        return Answer(status=201, content=await _added(asked, uid=name))
    updated = await asked.admin.tenants.update(
        tenant_id=tenant.tenant_id,
        name=body.name,
        metadata=body.metadata or {},
        uid=body.uid or (name if name == tenant.uid else None),
        actor=asked.access.actor,
    )
    return shown(updated)


async def patch(asked: Asked[NoQuery, ApplicationPatch]) -> ApplicationOut:
    """Change what is given of an application."""
    changes = {
        name: getattr(asked.body, name)
        for name in ("name", "uid", "metadata")
        if getattr(asked.body, name) is not UNSET
    }
    if not changes:
        return await get(asked)
    return shown(await asked.admin.tenants.update(tenant_id=asked.tenant, actor=asked.access.actor, **changes))


async def delete(asked: Asked[NoQuery, None]) -> None:
    """Delete an application, with its endpoints and tokens."""
    await asked.admin.tenants.delete(tenant_id=asked.tenant, actor=asked.access.actor)


CALLS: Final[tuple[Call, ...]] = (
    read(
        "application.list",
        "/api/v1/app",
        listing,
        query=Applications,
        result=ListOut[ApplicationOut],
        names={"after": "iterator"},
    ),
    manage(
        "application.create",
        "POST",
        "/api/v1/app",
        create,
        query=Creating,
        body=ApplicationIn,
        result=ApplicationOut,
        status=201,
        of_every_tenant=True,
        once=Once(result_id="id", again=by_id),
    ),
    read("application.get", APP, get, result=ApplicationOut),
    manage(
        "application.upsert",
        "PUT",
        APP,
        upsert,
        body=ApplicationIn,
        result=ApplicationOut,
        may_add_tenant=True,
        of_every_tenant=True,
    ),
    manage(
        "application.patch", "PATCH", APP, patch, body=ApplicationPatch, result=ApplicationOut, of_every_tenant=True
    ),
    manage("application.delete", "DELETE", APP, delete, status=204, of_every_tenant=True),
)
