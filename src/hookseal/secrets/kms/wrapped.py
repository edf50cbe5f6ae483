"""A wrapped master key, the KMS key that wraps it, and what it is bound to. Pure values."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from hookseal.errors import ConfigError, SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.openbao.server import OpenBaoServer

PURPOSE: Final = "hookseal-master-key"
FORM: Final = "a wrapped master key, as `hookseal key wrap` prints it"
KMS_FORM: Final = "aws:KEY_ARN, gcp:projects/P/locations/L/keyRings/R/cryptoKeys/K or openbao:MOUNT/KEY"

_VERSION: Final = "v1"
_WRAPPED: Final = re.compile(r"v1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{16,8192})")
_NAME: Final = "[A-Za-z0-9_-]{1,63}"
_PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_INSTALLATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class KmsKind(StrEnum):
    """A kind of KMS."""

    AWS = "aws"
    GCP = "gcp"
    OPENBAO = "openbao"


_KEY_NAMES: Final = {
    KmsKind.AWS: re.compile(
        r"arn:aws[a-z-]{0,20}:kms:(?P<region>[a-z0-9-]{1,32}):[0-9]{12}:(?:key/[A-Za-z0-9-]{1,64}|alias/[\w/-]{1,250})",
        re.ASCII,
    ),
    # A project may have the prefix of a domain: example.com:project.
    KmsKind.GCP: re.compile(
        rf"projects/[a-z0-9.:-]{{1,64}}/locations/[a-z0-9-]{{1,32}}/keyRings/{_NAME}/cryptoKeys/{_NAME}"
    ),
    KmsKind.OPENBAO: re.compile(rf"(?P<mount>{_PART}(?:/{_PART}){{0,7}})/(?P<key>{_PART})"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsKey:
    """A key of a KMS, which never leaves it. `str` gives it as `SECRETS_KMS` has it."""

    kind: KmsKind
    name: str

    @classmethod
    def parse(cls, text: str) -> "KmsKey":
        """Return the key of a text of the form `KMS_FORM`. Raises `ValueError`, without the text."""
        kind, _, name = text.partition(":")
        if kind not in frozenset(KmsKind) or _KEY_NAMES[KmsKind(kind)].fullmatch(name) is None:
            raise ValueError("not a key of a KMS")
        return cls(kind=KmsKind(kind), name=name)

    def part(self, name: str) -> str:
        """Return a named part of the name: `region` for AWS; `mount` and `key` for OpenBao."""
        match = _KEY_NAMES[self.kind].fullmatch(self.name)
        return "" if match is None else match[name]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsSettings:
    """The KMS of an installation, and the name that its wrapped keys are bound to.

    `may_be_plain` permits http to another machine, as outside production.
    """

    key: KmsKey
    installation: str
    openbao: OpenBaoServer | None = field(default=None, repr=False)
    may_be_plain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a wrapped key is bound to: the KMS unwraps it for this installation and under this key id only."""

    installation: str
    key_id: str

    @property
    def pairs(self) -> dict[str, str]:
        """The binding as an encryption context of AWS, on which a policy may set conditions."""
        return {"purpose": PURPOSE, "installation": self.installation, "key-id": self.key_id}

    @property
    def encoded(self) -> bytes:
        """The binding as associated data; no part of it can contain a slash."""
        return f"{PURPOSE}/{self.installation}/{self.key_id}".encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A master key that only the KMS can read. It is not secret; `str` gives it as the settings have it."""

    key_id: str
    ciphertext: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "WrappedKey":
        """Return the wrapped key of a text. Raises `ValueError`, without the text."""
        match = _WRAPPED.fullmatch(text)
        if match is None:
            raise ValueError("not a wrapped master key")
        try:
            ciphertext = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
        except binascii.Error:
            raise ValueError("not a wrapped master key") from None
        return cls(key_id=match[1], ciphertext=ciphertext)

    def __str__(self) -> str:
        return f"{_VERSION}.{self.key_id}.{base64.urlsafe_b64encode(self.ciphertext).decode('ascii').rstrip('=')}"


def installation_name(text: str) -> str:
    """Return the name of an installation if it is valid. Raises `ValueError`."""
    if _INSTALLATION.fullmatch(text) is None:
        raise ValueError("not the name of an installation")
    return text


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
