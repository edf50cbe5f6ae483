"""What hookseal needs of a KMS."""

from typing import Protocol

from hookseal.ground.errors import ConfigError
from hookseal.secrets.errors import SecretUnavailable
from hookseal.secrets.kms.wrapped import Binding
from hookseal.secrets.material import SecretMaterial


class Kms(Protocol):
    """A KMS with one key. It repeats nothing by itself; `KeyWrapper` limits how long a call may take."""

    async def wrap(self, plain: SecretMaterial, binding: Binding) -> bytes:
        """Return the plain key, encrypted and bound. Raises `KmsRefused`, and `SecretUnavailable` if it is away."""
        ...

    async def unwrap(self, ciphertext: bytes, binding: Binding) -> SecretMaterial:
        """Return the plain key. Raises `KmsRefused` if denied or bound to something else, and `SecretUnavailable`."""
        ...


class KmsRefused(ConfigError):
    """The KMS refuses: its policies or the settings must be changed."""

    code = "kms_refused"


def wrong_binding(name: str, binding: Binding) -> KmsRefused:
    """Return the refusal of a ciphertext that does not open in this binding."""
    return KmsRefused(
        f"{name} does not unwrap master key {binding.key_id} for the installation {binding.installation}: it was "
        "wrapped by another key, for another installation or under another key id, or it was altered. Set SECRETS_KMS "
        "and SECRETS_KMS_INSTALLATION as they were at `hookseal key wrap`, or wrap the key again",
        field="SECRETS_KMS",
    )


def unreadable(name: str) -> SecretUnavailable:
    """Return the error for an answer that has not what was asked for, as a page of something in between."""
    return SecretUnavailable(f"{name} gives an answer that cannot be read: look at what is between, such as a proxy")
