"""Moves the secrets of an endpoint, and the installation's own, to another provider, in the caller's transaction.

A secret of an endpoint gets a new version at the other provider with the same material, so that a claim in flight still
finds the version that it read. A secret of the installation keeps its version numbers, because MACs name them.
"""

from dataclasses import dataclass
from typing import Final

from hookseal.errors import Conflict, SecretTampered
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.ground.pointer import Pointer
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.core.trust import IntegrityKey, require_own
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key.keys import SENTINEL_NAME
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records
from hookseal.secrets.store.port import VersionState
from hookseal.secrets.store.several import SeveralStores

_SQL: Final = statements("move.sql")
_OWN: Final = {INTEGRITY_NAME: Purpose.INTEGRITY, SENTINEL_NAME: Purpose.SENTINEL}
_EXTRAS: Final = {extra.ref_field: extra.purpose for extra in stored.ALL}
# In the order in which they get their new versions: of the two signing secrets the current one last.
_REFS: Final = {"previous_secret_ref": Purpose.WEBHOOK_SIGNING, "secret_ref": Purpose.WEBHOOK_SIGNING, **_EXTRAS}
_SHOWN: Final = 5
_ACTIVE: Final = ("secret_ref", *_EXTRAS)


async def require_readers(source: Executor, provider: Provider, *, live_seconds: float) -> None:
    """Raise `Conflict` if a live worker does not read the provider: its deliveries would wait."""
    lacking = [row["id"] for row in await _SQL.rows(source, "workers_without", provider.value, live_seconds)]
    if lacking:
        names = ", ".join(lacking[:_SHOWN])
        needed = "SECRETS_MASTER_KEY" if provider is Provider.DB else f"SECRETS_ALSO_READ={provider} and its settings"
        raise Conflict(
            f"live workers do not read secrets of {provider}, so their deliveries would wait: {names}",
            advice=f"Start them again with {needed}, beside what they have",
            joint=". ",
            field="to",
        )


def is_at(row: Pointer, provider: Provider) -> bool:
    """Return whether everything that the row names is at the provider."""
    refs = [getattr(row, field) for field in _REFS]
    return all(ref is None or ref.startswith(f"{provider}:") for ref in refs)


async def move_endpoint(connection: Connection, store: SeveralStores, integrity: IntegrityKey, row: Pointer) -> Pointer:
    """Copy what the locked, verified pointer names to the provider that the store writes to, and move the pointer.

    The overlap, the schemes and the schedule of the endpoint stay as they are; an overlap that is over ends. Raises
    what the stores raise, `SecretTampered` if a copy opens to another value, and `SecretUnavailable`.
    """
    changes = overlap.changes_of_end(row) if row.previous_secret_ref and not row.previous_due else {}
    opened = {
        field: await _opened(store, row, getattr(row, field), purpose)
        for field, purpose in _REFS.items()
        if field not in changes and getattr(row, field) is not None
    }  # all of them first: a new version changes the states of the others
    copies = {field: await _copied(connection, store, version) for field, version in opened.items()}
    for field in _ACTIVE:
        if field in copies:
            previous = copies.get("previous_secret_ref") if field == "secret_ref" else None
            await records.arrange(connection, active=copies[field], previous=previous)
    changes |= {field: str(copy) for field, copy in copies.items()}
    return await pointer.move(connection, integrity, row, is_same_secret=True, **changes)


async def move_own(connection: Connection, store: SeveralStores) -> list[SecretRef]:
    """Move every version of the installation's own secrets to the provider that the store writes to; return the refs.

    A version that is there, and one that is destroyed, stays as it is. Raises what the stores raise.
    """
    target, moved = store.of(store.provider), []
    for name, purpose in _OWN.items():
        for version in await store.versions(SYSTEM_TENANT, name):
            ref = version.ref
            if ref.provider is store.provider or version.state is VersionState.DESTROYED:
                continue
            material = await store.get(ref, purpose=purpose)
            copy = await target.take_over(connection, ref, material, purpose=purpose)
            _require_same(await target.get(copy, purpose=purpose), material)
            moved.append(copy)
    return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A version that the endpoint names, with its material."""

    ref: SecretRef
    purpose: Purpose
    scheme: str | None
    material: SecretMaterial


async def _opened(store: SeveralStores, row: Pointer, text: str, purpose: Purpose) -> _Opened:
    ref = SecretRef.parse(text)
    require_own(ref, tenant=row.tenant_id, endpoint_id=row.endpoint_id, purpose=purpose)
    material = await store.get(ref, purpose=purpose)
    scheme = next(version.scheme for version in await store.versions(ref.tenant, ref.name) if version.ref == ref)
    return _Opened(ref=ref, purpose=purpose, scheme=scheme, material=material)


async def _copied(connection: Connection, store: SeveralStores, version: _Opened) -> SecretRef:
    """Store the version again at the other provider, read it back, and return its ref."""
    ref, purpose = version.ref, version.purpose
    copy = await store.rotate(ref.tenant, ref.name, version.material, purpose=purpose, scheme=version.scheme)
    _require_same(await store.get(copy, purpose=purpose), version.material)
    # What a leaked master key exposes is known of the copy, too.
    await _SQL.execute(connection, "pass_on_keys", ref.tenant, ref.name, ref.version, copy.version)
    return copy


def _require_same(copy: SecretMaterial, material: SecretMaterial) -> None:
    if copy != material:
        raise SecretTampered("the copy of the secret opens to another value than the secret: nothing was changed")
