"""Numbers that no function of ours writes, in rows that the pointer is read with: refused, or passed over."""

from dataclasses import replace
from typing import Any

import pytest

from hookseal.secrets.errors import SecretTampered
from hookseal.secrets.pointer import HIGHEST_GENERATION, generation_after
from hookseal.secrets.service import SecretService
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import BARE, INTEGRITY, TENANT, signed
from tests.secrets.samples import NAME as SIGNING

pytestmark = pytest.mark.req("SEC-24", part="sql-attacks")


@pytest.mark.parametrize("change", [{"cache_epoch": -1}, {"restore_epoch": -1}, {"cache_epoch": -(2**63)}])
async def test_without_its_epochs_nothing_is_given(change: dict[str, Any]) -> None:
    """Who cannot tell what is to be forgotten gives nothing, and asks no store: neither signers nor headers."""
    store = ScriptedStore()
    service = SecretService(reader_on(store), INTEGRITY)
    headers_ref = f"dev:{TENANT}:{SIGNING.replace('webhook-endpoint', 'endpoint-headers')}:1"
    pointer = replace(signed(replace(BARE, headers_ref=headers_ref)), **change)
    for given_out in (service.signers(pointer), service.headers(pointer)):
        with pytest.raises(SecretTampered, match="lacks its row `cache` or `restore`"):
            async with given_out:
                raise AssertionError("something was given out")

    assert [] == store.fetched
    assert 2 == service.statistics().definitive_failures


@pytest.mark.parametrize(
    ("known", "after"),
    [
        ((1, 1), 2),
        ((0, 5), 6),
        ((7, None), 8),
        ((-(2**63), None), 1),
        ((HIGHEST_GENERATION, 3), HIGHEST_GENERATION),
        ((1, HIGHEST_GENERATION), HIGHEST_GENERATION),
    ],
)
def test_the_generation_after_all_that_are_known(known: tuple[int | None, ...], after: int) -> None:
    """It is one above the highest, and never above what a row can hold."""
    assert after == generation_after(*known)
