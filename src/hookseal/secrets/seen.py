"""The highest generation of each endpoint that this process has seen: a row that falls behind it was put back."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import SecretRolledBack
from hookseal.secrets.integrity import rolled_back

MOST_ENDPOINTS: Final = 100_000
# Two claims at the same time may be served in either order; further apart, the later one reads what the other read.
APART: Final = timedelta(seconds=2)


@dataclass(slots=True)
class _Highest:
    generation: int
    read_at: datetime  # the first time that it was


class GenerationsSeen:
    """Remembers the endpoints that were seen last. A pointer is shown to it once its MAC was verified."""

    def __init__(self, most: int = MOST_ENDPOINTS) -> None:
        self._most = most
        self._epoch = -1
        self._epoch_read_at = datetime.min.replace(tzinfo=UTC)  # the first time that it was
        self._highest: OrderedDict[tuple[TenantId, EndpointId], _Highest] = OrderedDict()

    def require_newest(self, pointer: Pointer) -> None:
        """Return only if no higher generation of the endpoint was read two seconds or more before; remember this one.

        A restore that was accepted begins a new epoch: what was seen before says nothing any more. An older epoch than
        was seen is a database that was put back, unless it was read by a claim of that moment. Raises
        `SecretRolledBack`.
        """
        if pointer.restore_epoch < self._epoch:
            if pointer.read_at - self._epoch_read_at >= APART:
                raise SecretRolledBack(
                    "the database was put back to before a restore that this process knows was accepted: find out by "
                    "whom, and if it is lawful run `hookseal restore accept --head FILE` (runbook, HooksealRolledBack)"
                )
            return
        if pointer.restore_epoch > self._epoch:
            self._epoch, self._epoch_read_at = pointer.restore_epoch, pointer.read_at
            self._highest.clear()
        key = (pointer.tenant_id, pointer.endpoint_id)
        highest = self._highest.setdefault(key, _Highest(pointer.generation, pointer.read_at))
        if pointer.generation > highest.generation:
            highest.generation, highest.read_at = pointer.generation, pointer.read_at
        elif pointer.generation < highest.generation and pointer.read_at - highest.read_at >= APART:
            raise rolled_back(pointer.generation, highest.generation, "this process")
        self._highest.move_to_end(key)
        if len(self._highest) > self._most:
            self._highest.popitem(last=False)
