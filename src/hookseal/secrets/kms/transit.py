"""The transit engine of OpenBao: encrypt and decrypt, with associated data."""

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.kms.wrapped import Binding, KmsKey, KmsRefused, unreadable, wrong_binding
from hookseal.secrets.openbao import client
from hookseal.secrets.openbao.client import OpenBao, OpenBaoDenied, OpenBaoNotFound, OpenBaoRefused, part
from hookseal.secrets.openbao.server import OpenBaoServer


class TransitKms:
    """A key of the transit engine, of a type with associated data, such as the default aes256-gcm96."""

    def __init__(self, openbao: OpenBao, key: KmsKey) -> None:
        self._openbao = openbao
        self._key = key

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        """Return the plain key, encrypted and bound. Raises as `Kms` says."""
        answer = await self._ask("encrypt", {"plaintext": _base64(plain.reveal())}, binding)
        ciphertext = answer.get("ciphertext")
        if not isinstance(ciphertext, str) or not ciphertext.isascii():
            raise unreadable(str(self._key))
        return ciphertext.encode()

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        """Return the plain key. Raises as `Kms` says."""
        answer = await self._ask("decrypt", {"ciphertext": ciphertext.decode("ascii", "replace")}, binding)
        try:
            return SecretMaterial(base64.b64decode(answer["plaintext"], validate=True))
        except (KeyError, TypeError, ValueError):
            raise unreadable(str(self._key)) from None

    async def _ask(self, what: str, body: Mapping[str, object], binding: Binding) -> Mapping[str, Any]:
        path = f"{self._key.part('mount')}/{what}/{self._key.part('key')}"
        try:
            answer = await self._openbao.request("POST", path, {**body, "associated_data": _base64(binding.encoded)})
        except OpenBaoDenied as error:
            raise KmsRefused(str(error), field="SECRETS_KMS") from None
        except (OpenBaoNotFound, OpenBaoRefused) as error:
            raise self._meaning(error, what, binding) from None
        return part(answer, "data")

    def _meaning(self, error: OpenBaoNotFound | OpenBaoRefused, what: str, binding: Binding) -> KmsRefused:
        reasons = " ".join(error.reasons) if isinstance(error, OpenBaoRefused) else "not found"
        if isinstance(error, OpenBaoNotFound) and not error.is_mounted:
            mount = self._key.part("mount")
            return KmsRefused(
                f"there is no engine transit at {mount} for {self._key}: enable it (`bao secrets enable -path={mount} "
                "transit`), or correct SECRETS_KMS",
                field="SECRETS_KMS",
            )
        if "not found" in reasons:
            return KmsRefused(f"{self._key} does not exist: create it, or correct SECRETS_KMS", field="SECRETS_KMS")
        if "too old" in reasons:
            return KmsRefused(
                f"{self._key} no longer opens what wrapped master key {binding.key_id}: lower its "
                "min_decryption_version, or wrap the key again",
                field="SECRETS_KMS",
            )
        if what == "encrypt":
            return KmsRefused(
                f"{self._key} cannot wrap a key: it must be of a type with associated data, such as aes256-gcm96",
                field="SECRETS_KMS",
            )
        return wrong_binding(str(self._key), binding)


@asynccontextmanager
async def opened(key: KmsKey, server: OpenBaoServer | None, *, seconds: float) -> AsyncIterator[TransitKms]:
    """Give the key on that server. Raises `KmsRefused` without one."""
    if server is None:
        raise KmsRefused(f"BAO_ADDR is not set, and {key} needs it", field="BAO_ADDR")
    async with client.opened(server, seconds=seconds) as openbao:
        yield TransitKms(openbao, key)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
