"""The sentinel of an installation: opening it proves that its secrets can be opened."""

from typing import Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.secrets.errors import SecretError, SecretNotFound, SecretUnavailable
from hookseal.secrets.ref import Provider, Purpose, SecretRef
from hookseal.secrets.store.port import SecretStore, VersionState

PAID_SECONDS: Final = 60.0  # for which a result counts at a provider that charges for each read

_PAID: Final = frozenset({Provider.AWS, Provider.GCP})


class Sentinel:
    """Opens the sentinel: each time, or at most once a minute where each read is charged."""

    def __init__(self, ref: SecretRef, *, clock: Clock) -> None:
        self.ref = ref
        self._clock = clock
        self._read_at: float | None = None
        self._error: SecretError | SecretUnavailable | None = None

    async def check(self, store: SecretStore) -> None:
        """Open the sentinel. Raises `SecretError` or `SecretUnavailable` if that fails, or failed last time."""
        now = self._clock.monotonic()
        if self.ref.provider not in _PAID or self._read_at is None or now - self._read_at >= PAID_SECONDS:
            self._read_at = now  # at once, so that nobody else reads meanwhile
            try:
                await self._open(store)
            except (SecretError, SecretUnavailable) as error:
                self._error = error
            except BaseException:
                self._error = SecretUnavailable("the last read of the sentinel was cut short")
                raise
            else:
                self._error = None
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def _open(self, store: SecretStore) -> None:
        try:
            await store.get(self.ref, purpose=Purpose.SENTINEL)
        except SecretNotFound:
            moved = await active(store, self.ref.name)
            if moved == self.ref:
                raise
            self.ref = moved  # `hookseal secret move` has moved it
            await store.get(moved, purpose=Purpose.SENTINEL)


async def active(store: SecretStore, name: str) -> SecretRef:
    """Return the active version of a secret of the installation's own. Raises `SecretNotFound`, `SecretUnavailable`."""
    for version in await store.versions(SYSTEM_TENANT, name):
        if version.state is VersionState.ACTIVE:
            return version.ref
    raise SecretNotFound(f"the installation has no active secret {SYSTEM_TENANT}/{name}")
