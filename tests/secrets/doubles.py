"""A store that tells what it was asked, and fails when it is told to."""

from hookseal.ground.ids import TenantId
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.store import SecretVersion
from hookseal.secrets.stores.dev import DevStore


class ScriptedStore:
    """The store `dev`, with a memory of what was fetched and with errors to raise in place of answers."""

    def __init__(self) -> None:
        self.inner = DevStore()
        self.provider = self.inner.provider
        self.fetched: list[SecretRef] = []
        self.errors: dict[SecretRef, Exception] = {}

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Do as `dev` does."""
        return await self.inner.put(tenant, name, material, purpose=purpose, scheme=scheme)

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Remember the question; raise what was scripted for it, or do as `dev` does."""
        self.fetched.append(ref)
        if ref in self.errors:
            raise self.errors[ref]
        return await self.inner.get(ref, purpose=purpose)

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Do as `dev` does."""
        return await self.inner.rotate(tenant, name, material, purpose=purpose, scheme=scheme)

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Do as `dev` does."""
        return await self.inner.versions(tenant, name)

    async def destroy(self, ref: SecretRef) -> None:
        """Do as `dev` does."""
        await self.inner.destroy(ref)
