"""The variables of the master keys, plain or wrapped by a KMS. The table of keys says which key is active."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import BeforeValidator, InstanceOf, ValidationInfo

from hookseal.config.forms import load_request, parse_with, problem
from hookseal.config.settings import Environment, Part
from hookseal.errors import ConfigError
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.wrapped import KMS_FORM, KmsKey, WrappedKey, installation_name

MASTER_KEY: Final = "SECRETS_MASTER_KEY"
NEXT_KEY: Final = "SECRETS_MASTER_KEY_NEXT"
PREVIOUS_KEYS: Final = "SECRETS_MASTER_KEY_PREVIOUS"
KEY_NAMES: Final = (MASTER_KEY, NEXT_KEY, PREVIOUS_KEYS)
WRAPPED_KEY: Final = "SECRETS_MASTER_KEY_WRAPPED"
NEXT_WRAPPED_KEY: Final = "SECRETS_MASTER_KEY_NEXT_WRAPPED"
PREVIOUS_WRAPPED_KEYS: Final = "SECRETS_MASTER_KEY_PREVIOUS_WRAPPED"
WRAPPED_NAMES: Final = (WRAPPED_KEY, NEXT_WRAPPED_KEY, PREVIOUS_WRAPPED_KEYS)
KMS: Final = "SECRETS_KMS"
INSTALLATION: Final = "SECRETS_KMS_INSTALLATION"
FORM: Final = "32 random bytes in base64"

_MAX_PREVIOUS: Final = 16
_FIELDS: Final = (
    *("master_key", "next_key", "previous_keys"),
    *("wrapped_key", "next_wrapped_key", "previous_wrapped_keys"),
)


def _key(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    return _parsed(value, NEXT_KEY if info.field_name == "next_key" else MASTER_KEY)


def _keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(_parsed(text, PREVIOUS_KEYS) for text in _listed(value, PREVIOUS_KEYS))


def _wrapped_keys(text: str) -> tuple[WrappedKey, ...]:
    return tuple(WrappedKey.parse(each.strip()) for each in _listed(text, PREVIOUS_WRAPPED_KEYS))


def _listed(text: str, variable: str) -> list[str]:
    texts = text.split(",")
    if len(texts) > _MAX_PREVIOUS:
        raise problem(f"{variable} has more than {_MAX_PREVIOUS} keys: remove those that no record needs")
    return texts


def _parsed(text: str, variable: str) -> MasterKey:
    try:
        return MasterKey.parse(text, variable=variable)
    except ConfigError as error:
        raise problem("\n".join(error.problems)) from None


Key = Annotated[InstanceOf[MasterKey] | None, BeforeValidator(_key)]
Keys = Annotated[tuple[InstanceOf[MasterKey], ...], BeforeValidator(_keys)]
Wrapped = Annotated[InstanceOf[WrappedKey] | None, parse_with(WrappedKey.parse)]
WrappedList = Annotated[tuple[InstanceOf[WrappedKey], ...], parse_with(_wrapped_keys)]
KmsName = Annotated[InstanceOf[KmsKey] | None, parse_with(KmsKey.parse)]
Installation = Annotated[str | None, parse_with(installation_name)]


def require_consistent(value: object, name: str, info: ValidationInfo) -> None:
    """Raise a problem if the variable is missing, not for this provider, or readable by others in production."""
    request, provider = load_request(info), info.data.get("provider")
    held = {MASTER_KEY, WRAPPED_KEY} & request.present if name == MASTER_KEY else set()
    if held and request.draws_key:
        raise problem(f"{held.pop()} is set, and this command makes the master key: remove it")
    is_needed = name == MASTER_KEY and provider is Provider.DB and Part.SECRETS in request.needs
    if is_needed and not held and not request.draws_key:
        raise problem(
            f"{MASTER_KEY} is not set: db needs {FORM}, for instance from `openssl rand -base64 32`, "
            f"preferably in a file that {MASTER_KEY}_FILE names; or {WRAPPED_KEY} and {KMS}"
        )
    if value and provider is Provider.DEV:
        raise problem(f"{name} has no effect with SECRETS_PROVIDER dev: remove it, or use db")
    require_private_file(name, info)


def require_private_file(name: str, info: ValidationInfo) -> None:
    """Raise a problem if the variable is from a file that other users may read, in production."""
    if name in load_request(info).exposed and info.data.get("environment") is Environment.PRODUCTION:
        raise problem(f"{name}_FILE names a file that other users may read: remove that right (chmod 0400)")


def require_unwrappable(value: object, name: str, info: ValidationInfo) -> None:
    """Raise a problem if the variable is set beside its plain form, or there is nothing that unwraps it."""
    plain = name.removesuffix("_WRAPPED")
    if value and plain in load_request(info).present:
        raise problem(f"{plain} and {name} are both set: remove one")
    if value and info.data.get("provider") is Provider.DEV:
        raise problem(f"{name} has no effect with SECRETS_PROVIDER dev: remove it, or use db")
    if value and "kms" in info.data and info.data["kms"] is None:
        raise problem(f"{name} needs {KMS}: set it to the KMS that wrapped the key, {KMS_FORM}")


def require_installation(value: str | None, info: ValidationInfo) -> None:
    """Raise a problem if a KMS has no name of an installation to bind keys to."""
    if value is None and info.data.get("kms") is not None and INSTALLATION not in load_request(info).present:
        raise problem(
            f"{INSTALLATION} is not set: give this installation a name, to which its wrapped keys are bound, such as "
            "production"
        )
    if value is not None and "kms" in info.data and info.data["kms"] is None:
        raise problem(f"{INSTALLATION} has no effect without {KMS}: remove it, or set {KMS}")


def require_distinct(keys: Iterable[MasterKey | WrappedKey], name: str, info: ValidationInfo) -> None:
    """Raise a problem if a key of this variable repeats another one of it or of another variable."""
    named = zip(_FIELDS, (*KEY_NAMES, *WRAPPED_NAMES), strict=True)
    before = [(variable, key) for field, variable in named for key in _several(info.data.get(field))]
    for key in keys:
        for variable, other in before:
            if key.key_id == other.key_id:
                raise problem(f"{name} repeats the key of {variable}: remove it from one of them")
        before.append((name, key))


def _several(value: object) -> tuple[MasterKey | WrappedKey, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(each for each in values if isinstance(each, MasterKey | WrappedKey))
