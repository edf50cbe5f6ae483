"""A new version of the integrity key, audited under the one before it."""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.operator import Operator
from hookseal.secrets.context import Purpose
from hookseal.secrets.derivation import KEY_BYTES
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedIntegrity:
    """The version that authenticates now, and the ids of those that verify only, oldest first."""

    key_id: str
    ref: SecretRef
    older: tuple[str, ...]


async def rotate_integrity_key(operator: Operator, random_bytes: Callable[[int], bytes]) -> RotatedIntegrity:
    """Put a new version of the integrity key; every older one stays, to verify what it made.

    Whoever holds the older ones only learns it when it meets a row that names it. Raises what the store raises,
    and `Unavailable`.
    """
    integrity = operator.unlocked.integrity
    material = SecretMaterial(random_bytes(KEY_BYTES))
    async with operator.changing() as connection:
        store = operator.unlocked.store_on(connection)
        ref = await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)
        older = [version.ref for version in await store.versions(SYSTEM_TENANT, INTEGRITY_NAME) if version.ref != ref]
        await operator.tell(
            Change(
                tenant_id=SYSTEM_TENANT,
                action=Action.INTEGRITY_ROTATED,
                subject="integrity",
                before={"key_id": integrity.key_id},
                after={"key_id": str(ref.version), "integrity_ref": str(ref)},
            )
        )
    integrity.adopt(str(ref.version), material)  # not before: others could not verify what it makes
    integrity.make_under(str(ref.version))
    return RotatedIntegrity(key_id=integrity.key_id, ref=ref, older=tuple(str(one.version) for one in older))
