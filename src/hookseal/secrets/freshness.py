"""Decides whether a row is stale, from the audit log and from what this process has seen before. Pure."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.errors import StaleRow
from hookseal.secrets.integrity import stale_row

MOST_ENDPOINTS: Final = 100_000
# Two claims at the same time may read in either order. If they are this far apart, the later one reads the newer row.
APART: Final = timedelta(seconds=2)


def require_fresh_record(
    *, state: str, pointed: str | None, key_id: str, audited_key_id: str | None, key_is_drained: bool
) -> None:
    """Raise `StaleRow` if a record contradicts its endpoint or the audit log.

    `pointed` is the state that its endpoint's row implies, None if no endpoint names the record. `key_id` is the master
    key that sealed it, `audited_key_id` the key in its last audit row, None without one. `key_is_drained`: a re-wrap
    left no record under its key.
    """
    if pointed is not None and state != pointed:
        raise _stale(f"is {state} and its endpoint has it as {pointed}")
    if audited_key_id is not None and key_id != audited_key_id:
        raise _stale("is sealed under another master key than the audit log knows")
    if key_is_drained:
        raise _stale("is sealed under a master key that a re-wrap left no record of")


def _stale(how: str) -> StaleRow:
    return StaleRow(
        f"the secret record {how}, so it is stale: find out who put it there, and if it is lawful run "
        "`hookseal restore accept --head FILE` (runbook, HooksealStaleRow)"
    )


@dataclass(slots=True)
class _Highest:
    generation: int
    read_at: datetime  # when it was first read


class GenerationsSeen:
    """Remembers the highest generation of the endpoints seen last. Only pass pointers with a verified MAC."""

    def __init__(self, most: int = MOST_ENDPOINTS) -> None:
        self._most = most
        self._epoch = -1
        self._epoch_read_at = datetime.min.replace(tzinfo=UTC)  # when it was first read
        self._highest: OrderedDict[tuple[TenantId, EndpointId], _Highest] = OrderedDict()

    def require_newest(self, pointer: Pointer) -> None:
        """Remember the generation; raise `StaleRow` if a higher one was read two seconds or more before.

        An accepted restore begins a new epoch, and generations from before it no longer count. A pointer with an older
        epoch than one that was read two seconds or more before comes from a stale database: that is a `StaleRow`, too.
        """
        if pointer.restore_epoch < self._epoch:
            if pointer.read_at - self._epoch_read_at >= APART:
                raise StaleRow(
                    "the database is stale: it is from before a restore that this process knows was accepted; find "
                    "out who restored it, and if it is lawful run `hookseal restore accept --head FILE` (runbook, "
                    "HooksealStaleRow)"
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
            raise stale_row(pointer.generation, highest.generation, "this process")
        self._highest.move_to_end(key)
        if len(self._highest) > self._most:
            self._highest.popitem(last=False)
