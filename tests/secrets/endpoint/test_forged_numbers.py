"""Numbers that hookseal never writes, in the rows of a pointer, are refused or ignored."""

from typing import Any

import pytest

from hookseal.errors import SecretTampered
from hookseal.secrets.endpoint.pointer import HIGHEST_GENERATION, generation_after
from hookseal.secrets.resolve.service import SecretService
from tests.doubles.replaced import replace
from tests.secrets.doubles import ScriptedStore, reader_on
from tests.secrets.samples import BARE, INTEGRITY, TENANT, signed
from tests.secrets.samples import NAME as SIGNING

pytestmark = pytest.mark.req("SEC-24", part="sql-attacks")


@pytest.mark.parametrize("change", [{"cache_epoch": -1}, {"restore_epoch": -1}, {"cache_epoch": -(2**63)}])
async def test_an_invalid_epoch_gives_no_signers(change: dict[str, Any]) -> None:
    """With an invalid epoch, neither signers nor headers are handed out, and the store is not asked."""
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
def test_the_next_generation_is_above_every_known_one(known: tuple[int | None, ...], after: int) -> None:
    """The next generation is one above the highest known one, and never above what a row can hold."""
    assert after == generation_after(*known)
