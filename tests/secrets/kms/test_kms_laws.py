"""Every KMS keeps the same laws: AWS on moto, Google Cloud on a server of its protocol, OpenBao on a real one."""

import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from hookseal.errors import ConfigError, SecretUnavailable
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms.keys import KeyWrapper
from hookseal.secrets.kms.wrapped import Binding, Kms, KmsKey, KmsKind, KmsRefused, KmsSettings, WrappedKey
from tests.doubles.clock import FakeClock
from tests.secrets.kms.sites import Site, aws_site, gcp_site, openbao_site

pytestmark = pytest.mark.req("SEC-25")

PLAIN = bytes(range(100, 132))
MASTER_KEY = MasterKey(SecretMaterial(PLAIN))
BINDING = Binding(installation="production", key_id=MASTER_KEY.key_id)


@pytest.fixture(params=list(KmsKind))
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AbstractAsyncContextManager[Site]:
    """Return each KMS, to be opened; its server must start outside of the event loop of a test."""
    match request.param:
        case KmsKind.AWS:
            return aws_site(request.getfixturevalue("aws_address"), monkeypatch)
        case KmsKind.GCP:
            return gcp_site()
        case _:
            return openbao_site(request.getfixturevalue("openbao_address"))


@pytest.fixture
async def site(made: AbstractAsyncContextManager[Site]) -> AsyncIterator[Site]:
    """Yield each KMS."""
    async with made as found:
        yield found


def wrapper(kms: Kms, key: KmsKey, installation: str = "production") -> KeyWrapper:
    """Return the wrapper of that KMS for an installation."""
    return KeyWrapper(kms, KmsSettings(key=key, installation=installation), clock=FakeClock())


async def test_a_wrapped_key_is_unwrapped_unchanged(site: Site) -> None:
    """A key comes back as it was, from a text without any of it; the version of the KMS key does not matter."""
    async with site.opened(site.one) as kms:
        text = str(await wrapper(kms, site.one).wrap(MASTER_KEY))
        await site.rotate()
        found = await wrapper(kms, site.one).unwrap(WrappedKey.parse(text))
        anew = await wrapper(kms, site.one).wrap(MASTER_KEY)

    assert MASTER_KEY.is_same_key(found)
    assert text != str(anew)
    assert PLAIN not in WrappedKey.parse(text).ciphertext
    assert base64.urlsafe_b64encode(PLAIN).decode()[:20] not in text


async def test_a_wrapped_key_opens_only_in_its_binding(site: Site) -> None:
    """Another installation, another key id, another KMS key or one altered bit opens nothing, and that is final."""
    async with site.opened(site.one) as kms, site.opened(site.another) as other:
        made = await wrapper(kms, site.one).wrap(MASTER_KEY)
        for moved in (replace(BINDING, installation="staging"), replace(BINDING, key_id="0" * 16)):
            with pytest.raises(KmsRefused, match="SECRETS_KMS_INSTALLATION"):
                await kms.unwrap(made.ciphertext, moved)
        with pytest.raises(KmsRefused):
            await other.unwrap(made.ciphertext, BINDING)
        with pytest.raises(KmsRefused):
            await kms.unwrap(made.ciphertext[:-1] + bytes([made.ciphertext[-1] ^ 1]), BINDING)
        with pytest.raises(KmsRefused):
            await kms.unwrap(b"of another kind of KMS", BINDING)


async def test_wrapped_content_that_is_not_the_key_is_refused(site: Site) -> None:
    """Unwrapped bytes that are not the key of that id are refused."""
    async with site.opened(site.one) as kms:
        for plain in (bytes(32), b"short"):
            made = WrappedKey(key_id=BINDING.key_id, ciphertext=await kms.wrap(SecretMaterial(plain), BINDING))
            with pytest.raises(KmsRefused):
                await wrapper(kms, site.one).unwrap(made)


async def test_a_missing_kms_key_is_a_configuration_error(site: Site) -> None:
    """A KMS key that does not exist is an error of the settings, and names it."""
    async with site.opened(site.one) as kms, site.opened(site.missing) as missing:
        made = await kms.wrap(MASTER_KEY.material, BINDING)
        with pytest.raises(ConfigError) as refused:
            await missing.unwrap(made, BINDING)

    assert 78 == refused.value.exit_code
    assert str(site.missing) in str(refused.value)


async def test_an_unreachable_kms_is_transient(site: Site) -> None:
    """A KMS that does not answer is transient."""
    async with site.unreachable(site.one) as kms:
        with pytest.raises(SecretUnavailable, match="does not answer"):
            await kms.unwrap(b"x" * 60, BINDING)
