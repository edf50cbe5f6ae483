"""An unreachable KMS is asked again for a bounded time; a refusal is final at once."""

import asyncio

import pytest

from hookseal.errors import HooksealError, SecretUnavailable, Unavailable
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms.keys import PATIENCE_SECONDS, KeyWrapper, key_wrapper
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused, KmsSettings, WrappedKey
from hookseal.secrets.openbao.server import OpenBaoServer
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("SEC-25")

MASTER_KEY = MasterKey(SecretMaterial(bytes(range(100, 132))))
SETTINGS = KmsSettings(key=KmsKey.parse("openbao:transit/hookseal"), installation="production")
WRAPPED = WrappedKey(key_id=MASTER_KEY.key_id, ciphertext=b"wrapped by a KMS")


class Scripted:
    """A KMS that fails as a test asks, and then unwraps to the key."""

    def __init__(self, *failures: HooksealError) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        """Return something."""
        return (await self.unwrap(b"", binding)).reveal()[:16]

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        """Fail, or return the key."""
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return MASTER_KEY.material


async def test_a_recovered_kms_is_used() -> None:
    """A KMS that was unreachable is asked again after growing delays, and the process starts."""
    clock, kms = FakeClock(), Scripted(*[SecretUnavailable("away")] * 5)
    found = await KeyWrapper(kms, SETTINGS, clock=clock).unwrap(WRAPPED)

    assert MASTER_KEY.is_same_key(found)
    assert [0.25, 0.5, 1.0, 2.0, 2.0] == clock.slept


async def test_an_unreachable_kms_ends_the_start() -> None:
    """After twelve seconds the start ends with 69, and says what to do."""
    clock, kms = FakeClock(), Scripted(*[SecretUnavailable("openbao is sealed")] * 100)
    with pytest.raises(Unavailable) as ended:
        await KeyWrapper(kms, SETTINGS, clock=clock).unwrap(WRAPPED)

    assert 69 == ended.value.exit_code
    assert str(ended.value).startswith("openbao is sealed; openbao was asked for 12 seconds")
    assert 10.0 < clock.elapsed <= PATIENCE_SECONDS


async def test_a_refusal_is_final() -> None:
    """A refusal is not repeated, and ends with 78."""
    kms = Scripted(KmsRefused("denied"))
    with pytest.raises(KmsRefused) as ended:
        await KeyWrapper(kms, SETTINGS, clock=FakeClock()).unwrap(WRAPPED)

    assert (78, 1) == (ended.value.exit_code, kms.calls)


async def test_a_hanging_kms_ends_in_time() -> None:
    """Whatever a client does, the block ends within its time."""
    server = OpenBaoServer(address="http://127.0.0.1:1", credentials=SecretMaterial(b"t"))
    settings = KmsSettings(key=SETTINGS.key, installation="production", openbao=server)
    with pytest.raises(Unavailable, match="openbao:transit/hookseal does not answer"):
        async with key_wrapper(settings, clock=FakeClock(), seconds=0.1):
            await asyncio.Event().wait()
