"""A claim whose answer is lost is ended by its worker, whatever error lost it."""

from collections.abc import Sequence
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Claimed, Ring
from hookseal.worker.claims import KnownClaims
from tests.doubles.claims import RING


class DamagedStore:
    """Claims nothing, because a row cannot be read, and gives nothing back for another reason."""

    async def claim_all(self, rings: Sequence[Ring], token: str, *, most_bytes: int) -> Claimed:
        raise ValueError("a row cannot be read")

    async def give_back(self, tokens: list[str]) -> list[str]:
        raise PermissionError("the role may not")


async def test_claims_that_cannot_be_given_back_are_ended_by_their_token() -> None:
    lost: list[str] = []
    store: Any = DamagedStore()
    claims = KnownClaims(store, new_token=lambda: "token", lost=lost.append)

    with pytest.raises(PermissionError):
        await claims.claim_all([RING, RING], most_bytes=1)
    assert ["token"] == lost
