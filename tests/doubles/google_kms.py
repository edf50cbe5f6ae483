"""A Cloud KMS that speaks the protocol of Google's, by Google's own messages, over a socket. It is no Google."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import google_crc32c
import grpc
import grpc.aio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse

_SERVICE: Final = "google.cloud.kms.v1.KeyManagementService"
_NONCE_BYTES: Final = 12


class GoogleKms:
    """Its keys, each with the versions that it has had; `failing` is what it answers instead, if that is set."""

    def __init__(self) -> None:
        self.keys: dict[str, list[AESGCM]] = {}
        self.failing: grpc.StatusCode | None = None
        self.details = "as the test asks"
        self.flips_a_bit = False
        self.opens_to: bytes | None = None  # in place of what was wrapped
        self.calls = 0

    def rotate(self, name: str) -> None:
        """Make a new primary version; the older ones still decrypt."""
        self.keys.setdefault(name, []).append(AESGCM(os.urandom(32)))

    async def encrypt(self, request: Any, context: Any) -> Any:
        versions = await self._versions(request.name, context)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = versions[-1].encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        ciphertext = bytes([len(versions) - 1]) + nonce + sealed
        return EncryptResponse(
            name=request.name,
            ciphertext=ciphertext,
            ciphertext_crc32c=_checksum(ciphertext) ^ self.flips_a_bit,
            verified_plaintext_crc32c=request.plaintext_crc32c == _checksum(request.plaintext),
            verified_additional_authenticated_data_crc32c=request.additional_authenticated_data_crc32c
            == _checksum(request.additional_authenticated_data),
        )

    async def decrypt(self, request: Any, context: Any) -> Any:
        versions = await self._versions(request.name, context)
        text = request.ciphertext
        if request.ciphertext_crc32c != _checksum(text):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "checksum")
        plain, nonce, sealed = b"", text[1 : 1 + _NONCE_BYTES], text[1 + _NONCE_BYTES :]
        try:
            plain = versions[text[0]].decrypt(nonce, sealed, request.additional_authenticated_data)
        except (InvalidTag, IndexError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        plain = plain if self.opens_to is None else self.opens_to
        return DecryptResponse(plaintext=plain, plaintext_crc32c=_checksum(plain) ^ self.flips_a_bit)

    async def _versions(self, name: str, context: Any) -> list[AESGCM]:
        self.calls += 1
        if self.failing is not None:
            await context.abort(self.failing, self.details)
        if name not in self.keys:
            await context.abort(grpc.StatusCode.NOT_FOUND, "CryptoKey not found.")
        return self.keys[name]


@asynccontextmanager
async def google_kms() -> AsyncIterator[tuple[GoogleKms, str]]:
    """Serve one during the block; give it and its address."""
    kms, server = GoogleKms(), grpc.aio.server()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            behaviour, request_deserializer=asked.deserialize, response_serializer=answered.serialize
        )
        for name, behaviour, asked, answered in (
            ("Encrypt", kms.encrypt, EncryptRequest, EncryptResponse),
            ("Decrypt", kms.decrypt, DecryptRequest, DecryptResponse),
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield kms, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _checksum(value: bytes) -> int:
    return int(google_crc32c.value(bytes(value)))
