"""Endpoints: the list of them, one with its state and settings, and the forms that add, change and test them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec

from hookseal.admin import EndpointDetails, EventType, Scope
from hookseal.api import problems
from hookseal.api.access import require_scopes
from hookseal.api.calls.messages import example_of
from hookseal.api.problems import Problem
from hookseal.errors import Conflict, HooksealError, Malformed, NotFound, Refused
from hookseal.pages import words
from hookseal.pages.forms import Fields
from hookseal.pages.page import PAGE_SIZE, Asked, Moved, Shown, act, listed, read

MOST_TYPES: Final = 100  # of the catalogue, that a form offers
_EVERY: Final = ("*",)
_HEADER: Final = re.compile(r"([^:\s]+)\s*:\s*(.*)")
_DISABLED: Final = "disabled on the webhooks page"
_FIELDS: Final = frozenset({"url", "description", "event_types", "headers", "change_headers"})
ONE: Final = "/endpoint/{endpoint_id}"


class EditableSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a form changes of an endpoint, as its page showed it."""

    url: str
    description: str
    event_types: tuple[str, ...]
    header_names: tuple[str, ...]
    generation: int


def settings_of(endpoint: EndpointDetails) -> EditableSettings:
    """Return what the form of this endpoint has."""
    return EditableSettings(
        url=endpoint.url,
        description=endpoint.description,
        event_types=endpoint.event_types,
        header_names=endpoint.header_names,
        generation=endpoint.generation,
    )


def types_in(form: Fields) -> list[str]:
    """Return the event types that a form has chosen: every one, or those of the catalogue and of its lines."""
    if form.text("every") == "yes":
        return [*_EVERY]
    return [*form.every("type"), *form.lines("more")]


def headers_in(form: Fields) -> dict[str, str]:
    """Return the headers of a form, `Name: value` on each line. Raises `Malformed`."""
    headers: dict[str, str] = {}
    for line in form.lines("headers"):
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Malformed("must be a name, a colon and a value on each line", field="headers")
        headers[found[1]] = found[2]
    return headers


async def first(asked: Asked) -> Shown | Moved:
    """Show the endpoints with their state and their last day, the newest first; an operator's first page is another."""
    if asked.access.tenant_id is None:
        return Moved(to=asked.link("operator"))
    values = await listed(asked, partial(asked.admin.endpoints.list, tenant_id=asked.tenant))
    cursor = asked.query.text("after") or None
    stats = await asked.admin.endpoints.stats(tenant_id=asked.tenant, limit=PAGE_SIZE, cursor=cursor)
    return Shown(
        template="endpoints.html", values={**values, "stats": {each.endpoint_id: each for each in stats.items}}
    )


async def show(asked: Asked) -> Shown:
    """Show an endpoint: its state and what is wrong with it, its settings, and its newest deliveries."""
    endpoint = await _found(asked)
    stats = await asked.admin.endpoints.stats(tenant_id=asked.tenant, endpoint_id=endpoint.endpoint_id)
    newest = await asked.admin.deliveries.list(tenant_id=asked.tenant, endpoint_id=endpoint.endpoint_id, limit=10)
    values = {"endpoint": endpoint, "stats": stats.items[0], "deliveries": newest.items, "now": asked.now}
    return Shown(template="endpoint.html", values=values)


async def _found(asked: Asked) -> EndpointDetails:
    return await asked.admin.endpoints.get(tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"])


async def _catalogue(asked: Asked) -> tuple[EventType, ...]:
    return (await asked.admin.event_types.list(limit=MOST_TYPES)).items


async def new(asked: Asked) -> Shown:
    """Show the form for a new endpoint."""
    return await _form(asked, Fields({"every": ["yes"]}))


async def add(asked: Asked) -> Shown | Moved:
    """Add an endpoint. Its secret is shown when somebody asks for it."""
    try:
        added = await asked.admin.endpoints.add(
            tenant_id=asked.tenant,
            url=asked.form.text("url"),
            description=asked.form.text("description"),
            event_types=types_in(asked.form),
            headers=headers_in(asked.form),
            actor=asked.access.actor,
        )
    except (Malformed, Refused, Conflict) as error:
        return await _form(asked, asked.form, errors=words.said_of(error, _FIELDS))
    return Moved(to=asked.link("secret", {"done": "added"}, endpoint_id=added.endpoint_id))


async def _form(
    asked: Asked,
    form: Fields,
    *,
    errors: Mapping[str, str] | None = None,
    status: int | None = None,
    endpoint: EndpointDetails | None = None,
    changed: Sequence[tuple[str, str, str]] = (),
    losing: str | None = None,
) -> Shown:
    """Return the form of a new endpoint, or of this one; `changed` is what somebody else has changed meanwhile.

    `losing` says what another server does not get: then the form asks what to do with it.
    """
    types = [each for each in await _catalogue(asked) if not each.deprecated]
    chosen = types_in(form)
    names = {each.name for each in types}
    values = {
        "endpoint": endpoint,
        "seen": None if endpoint is None else msgspec.json.encode(settings_of(endpoint)).decode(),
        "url": form.text("url"),
        "description": form.text("description"),
        "is_every": form.text("every") == "yes",
        "types": types,
        "chosen": set(chosen),
        "more": "\n".join(each for each in chosen if each not in names and each not in _EVERY),
        "headers": form.text("headers"),
        "removed": set(form.every("remove")),
        "errors": errors or {},
        "changed": changed,
        "losing": losing,
        "may_keep": asked.access.may_reveal,
    }
    return Shown(template="endpoint_form.html", values=values, status=status)


async def edit(asked: Asked) -> Shown:
    """Show the form with the settings of an endpoint."""
    endpoint = await _found(asked)
    return await _form(asked, _as_form(settings_of(endpoint)), endpoint=endpoint)


def _as_form(settings: EditableSettings) -> Fields:
    is_every = settings.event_types == _EVERY
    return Fields(
        {
            "url": [settings.url],
            "description": [settings.description],
            "every": ["yes" if is_every else "no"],
            "type": [] if is_every else settings.event_types,
        }
    )


async def save(asked: Asked) -> Shown | Moved:
    """Change what the form changes; if somebody has changed the endpoint since it was shown, show what.

    Before headers are removed because the URL is of another server, ask. Who may reveal may keep them.
    """
    seen, endpoint_id = _seen(asked.form), asked.path["endpoint_id"]
    sealed = asked.form.text("sealed")
    if sealed == "keep":
        require_scopes(asked.access, frozenset({Scope.REVEAL}))
    try:
        changes = _changes(seen, asked.form)
        if not changes:
            return Moved(to=asked.link("endpoint", {"done": "unchanged"}, endpoint_id=endpoint_id))
        await asked.admin.endpoints.update(
            tenant_id=asked.tenant,
            endpoint_id=endpoint_id,
            expect_generation=seen.generation,
            expect={"url": seen.url, "description": seen.description, "event_types": seen.event_types},
            keep_headers={"keep": True, "remove": False}.get(sealed),
            actor=asked.access.actor,
            **changes,
        )
    except Conflict as error:
        if error.field == "keep_headers":
            losing = words.sentence(error.public)
            return await _form(asked, asked.form, status=409, endpoint=await _found(asked), losing=losing)
        if error.field in {"expect_generation", "expect"}:
            return await _overtaken(asked, seen)
        return await _again(asked, error)
    except (Malformed, Refused) as error:
        return await _again(asked, error)
    return Moved(to=asked.link("endpoint", {"done": "saved"}, endpoint_id=endpoint_id))


async def _again(asked: Asked, error: HooksealError) -> Shown:
    errors = words.said_of(error, _FIELDS)
    return await _form(asked, asked.form, errors=errors, endpoint=await _found(asked))


def _seen(form: Fields) -> EditableSettings:
    try:
        return msgspec.json.decode(form.text("seen"), type=EditableSettings)
    except msgspec.DecodeError:
        raise Problem(400, "bad_form", "the form is not complete") from None


def _changes(seen: EditableSettings, form: Fields) -> dict[str, Any]:
    wanted = {
        "url": form.text("url"),
        "description": form.text("description"),
        "event_types": tuple(types_in(form)),
    }
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value != getattr(seen, name)}
    headers: dict[str, str | None] = {**dict.fromkeys(form.every("remove")), **headers_in(form)}
    return changes | ({"change_headers": headers} if headers else {})


async def _overtaken(asked: Asked, seen: EditableSettings) -> Shown:
    endpoint = await _found(asked)
    now = settings_of(endpoint)
    changed = [
        (words.FIELDS[name], _shown(getattr(seen, name)), _shown(getattr(now, name)))
        for name in ("url", "description", "event_types", "header_names")
        if getattr(seen, name) != getattr(now, name)
    ]
    return await _form(asked, asked.form, status=409, endpoint=endpoint, changed=changed or [words.SECRET_CHANGED])


def _shown(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


async def disable(asked: Asked) -> Moved:
    """Send nothing to an endpoint until it is enabled."""
    await asked.admin.endpoints.disable(
        tenant_id=asked.tenant,
        endpoint_id=asked.path["endpoint_id"],
        reason=_DISABLED,
        actor=asked.access.actor,
    )
    return Moved(to=asked.link("endpoint", {"done": "disabled"}, endpoint_id=asked.path["endpoint_id"]))


async def enable(asked: Asked) -> Moved:
    """Enable an endpoint, and send what waits for it; of one that is paused, try the oldest delivery now."""
    enabled = await asked.admin.endpoints.enable(
        tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"], actor=asked.access.actor
    )
    done = {"done": "probed"} if enabled.probed else {"done": "enabled", "n": enabled.woken + enabled.in_line}
    return Moved(to=asked.link("endpoint", done, endpoint_id=asked.path["endpoint_id"]))


async def leaving(asked: Asked) -> Shown:
    """Ask whether an endpoint is to be deleted."""
    return Shown(template="endpoint_delete.html", values={"endpoint": await _found(asked)})


async def delete(asked: Asked) -> Moved:
    """Delete an endpoint, and cancel what waits for it."""
    deleted = await asked.admin.endpoints.delete(
        tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"], actor=asked.access.actor
    )
    return Moved(to=asked.link("endpoints", {"done": "deleted", "n": deleted.cancelled}))


async def testing(asked: Asked) -> Shown:
    """Show the event types that have an example."""
    return await _testing(asked)


async def _testing(asked: Asked, errors: Mapping[str, str] | None = None) -> Shown:
    endpoint = await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"])
    types = [each for each in await _catalogue(asked) if _example(each) is not None]
    values = {"endpoint": endpoint, "types": types, "errors": errors or {}}
    return Shown(template="endpoint_test.html", values=values)


def _example(event_type: EventType) -> bytes | None:
    try:
        return example_of(event_type.schemas, 0)
    except Problem:
        return None


async def test(asked: Asked) -> Shown | Moved:
    """Send the example of an event type to an endpoint, as every other delivery."""
    name = asked.form.text("type")
    try:
        example = _example(await asked.admin.event_types.get(name=name))
    except (Malformed, NotFound):
        example = None
    if example is None:
        return await _testing(asked, {"event_type": "Choose a type that has an example."})
    try:
        sent = await asked.admin.endpoints.send_example(
            tenant_id=asked.tenant,
            endpoint_id=asked.path["endpoint_id"],
            event_type=name,
            body=example,
            actor=asked.access.actor,
        )
    except Refused:
        raise problems.conflict("the endpoint is disabled: enable it first") from None
    return Moved(to=asked.link("delivery", {"done": "sent"}, delivery_id=sent.delivery_id))


PAGES: Final = (
    replace(read("endpoints", "/", first), of_every_tenant=None),
    read("endpoint.new", "/add", new, Scope.MANAGE),
    act("endpoint.add", "/add", add, Scope.READ, Scope.MANAGE),
    read("endpoint", ONE, show),
    read("endpoint.edit", ONE + "/edit", edit, Scope.MANAGE),
    act("endpoint.save", ONE + "/edit", save, Scope.READ, Scope.MANAGE),
    act("endpoint.disable", ONE + "/disable", disable, Scope.READ, Scope.MANAGE),
    act("endpoint.enable", ONE + "/enable", enable, Scope.READ, Scope.MANAGE),
    read("endpoint.leaving", ONE + "/delete", leaving, Scope.MANAGE),
    act("endpoint.delete", ONE + "/delete", delete, Scope.READ, Scope.MANAGE),
    read("endpoint.testing", ONE + "/test", testing, Scope.OPERATE),
    act("endpoint.test", ONE + "/test", test, Scope.READ, Scope.OPERATE),
)
