"""The laws of `ProviderApi`, for every provider outside PostgreSQL."""

from dataclasses import replace

import pytest

from hookseal.errors import SecretDenied, SecretNotFound
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.store.port import NumberTaken, ProviderApi, Rest
from tests.doubles.providers import OWNER
from tests.secrets.samples import NAME, TENANT
from tests.secrets.store.conftest import EXTERNAL, of_providers

pytestmark = pytest.mark.parametrize("api", of_providers(*EXTERNAL), indirect=True)
ALONE = Rest(is_needed=False)
OTHER_OWNER = "0197c1f0-5e6a-7c3b-9d2e-4f5061728395"


def _ref(api: ProviderApi, version: int = 1, tenant: str = TENANT, name: str = NAME) -> SecretRef:
    return SecretRef(provider=api.provider, tenant=TenantId(tenant), name=name, version=version)


async def test_a_version_is_read_as_it_was_written(api: ProviderApi) -> None:
    """Bytes come back as they were written, each version for itself, whichever was written last."""
    first, second = _ref(api), _ref(api, 2)
    await api.write(first, b"\x00\xff" * 32_768, owner=OWNER, is_first=True)
    await api.write(second, b"x", owner=OWNER, is_first=False)

    assert (b"\x00\xff" * 32_768, b"x") == (await api.read(first), await api.read(second))


async def test_a_write_may_be_repeated(api: ProviderApi) -> None:
    """After a lost reply the same write succeeds again and changes nothing, for a first version and for a later one."""
    for version, is_first in ((1, True), (2, False)):
        ref = _ref(api, version)
        for _ in range(3):
            await api.write(ref, b"the same", owner=OWNER, is_first=is_first)
        assert b"the same" == await api.read(ref)


async def test_a_version_never_changes(api: ProviderApi) -> None:
    """Other bytes under a version are refused as taken, and the first ones stay."""
    for version, is_first in ((1, True), (2, False)):
        ref = _ref(api, version)
        await api.write(ref, b"first", owner=OWNER, is_first=is_first)
        with pytest.raises(NumberTaken):
            await api.write(ref, b"other", owner=OWNER, is_first=is_first)
        assert b"first" == await api.read(ref)


async def test_an_abandoned_version_number_is_skipped(api: ProviderApi) -> None:
    """After an abandoned first version of this installation, the next number is the first version of the name."""
    await api.write(_ref(api, 1), b"abandoned", owner=OWNER, is_first=True)
    await api.write(_ref(api, 2), b"kept", owner=OWNER, is_first=True)

    assert b"kept" == await api.read(_ref(api, 2))


async def test_a_name_of_another_installation_is_not_touched(api: ProviderApi) -> None:
    """A name that another installation has is denied with what to do, and stays as it is."""
    ref = _ref(api)
    await api.write(ref, b"theirs", owner=OTHER_OWNER, is_first=True)
    for is_first in (True, False):  # also if they replaced ours
        with pytest.raises(SecretDenied, match=r"did not make it.*SECRETS_NAME_PREFIX"):
            await api.write(ref, b"ours", owner=OWNER, is_first=is_first)
    await api.remove(ref, ALONE, owner=OWNER)

    assert b"theirs" == await api.read(ref)


async def test_a_missing_version_is_not_found(api: ProviderApi) -> None:
    """A missing version, and a version of a missing name, are not found; the error says what to do."""
    await api.write(_ref(api), b"x", owner=OWNER, is_first=True)
    for missing in (_ref(api, 2), _ref(api, name="none"), _ref(api, tenant="bmce")):
        with pytest.raises(SecretNotFound, match="somebody removed it") as refused:
            await api.read(missing)
        assert "rotate --overlap 0" in (refused.value.advice or "")


async def test_a_removed_version_is_not_found(api: ProviderApi) -> None:
    """The last version of a name is gone once it is removed; removing it again is no error."""
    ref = _ref(api)
    await api.write(ref, b"x", owner=OWNER, is_first=True)
    for _ in range(2):
        await api.remove(ref, ALONE, owner=OWNER)

    with pytest.raises(SecretNotFound):
        await api.read(ref)


async def test_removing_one_version_leaves_the_others(api: ProviderApi) -> None:
    """While other versions of the name are needed, these stay readable."""
    first, second = _ref(api), _ref(api, 2)
    await api.write(first, b"one", owner=OWNER, is_first=True)
    await api.write(second, b"two", owner=OWNER, is_first=False)
    await api.remove(first, Rest(is_needed=True, active=second), owner=OWNER)
    await api.remove(replace(second, version=3), Rest(is_needed=True, active=second), owner=OWNER)

    assert b"two" == await api.read(second)


@pytest.mark.req("SEC-08")
async def test_different_refs_are_different_secrets(api: ProviderApi) -> None:
    """Refs that differ in case, in a separator or in where a part ends are different secrets."""
    long = "n" * 128
    refs = [
        *(_ref(api, 1, "acme", "a.b"), _ref(api, 1, "acme", "a_b"), _ref(api, 1, "acme", "a-b")),
        *(_ref(api, 1, "Acme", "a.b"), _ref(api, 1, "acme", "A.b"), _ref(api, 1, "acme.a", "b")),
        *(_ref(api, 11, "acme", "n"), _ref(api, 1, "acme", "n1"), _ref(api, 1, "acme", "n.1"), _ref(api, 1, "a", "..")),
        *(
            _ref(api, 1, "t.x_", "u"),
            _ref(api, 1, "t", "_x_u"),
            _ref(api, 1, "t_" * 31, long),
            _ref(api, 2, "t_" * 31, long),
        ),
    ]
    for number, ref in enumerate(refs):
        await api.write(ref, str(number).encode(), owner=OWNER, is_first=True)

    assert [str(number).encode() for number in range(len(refs))] == [await api.read(ref) for ref in refs]
