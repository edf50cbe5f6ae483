"""Adds and changes event types of the catalogue, audited in the log of the installation."""

import hashlib
from collections.abc import Mapping
from typing import Any

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import event_types
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.operations.operator import Operator


async def add_event_type(operator: Operator, given: CataloguedType) -> dict[str, Any]:
    """Add the type. Raises `Conflict` if there is one with this name that is not archived, and `Unavailable`."""
    async with operator.changing() as connection:
        added = await event_types.add(connection, given)
        await operator.audit(Action.EVENT_TYPE_ADDED, of=f"event_type:{given.name}", after=_facts(added))
    return added


async def update_event_type(operator: Operator, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change what is said of a type. Without a difference nothing is done. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        before = await event_types.lock(connection, name)
        if all(before[field] == value for field, value in changes.items()):
            return before
        said = {field: before[field] for field in ("description", "schemas", "deprecated", "archived")}
        updated = await event_types.update(connection, CataloguedType(name=name, **{**said, **changes}))
        await operator.audit(
            Action.EVENT_TYPE_UPDATED, of=f"event_type:{name}", before=_facts(before), after=_facts(updated)
        )
    return updated


def _facts(said: Mapping[str, Any]) -> dict[str, object]:
    schemas = said["schemas"]
    return {
        **{field: said[field] for field in ("description", "deprecated", "archived")},
        "schemas_sha256": None if schemas is None else hashlib.sha256(schemas.encode()).hexdigest(),
    }
