"""The variables of the master keys: material only. Which key seals stands in the table of keys."""

from typing import Annotated, Final

from pydantic import BeforeValidator, InstanceOf, ValidationInfo

from hookseal.config.problems import asked_of, problem
from hookseal.config.settings import Environment, Part
from hookseal.ground.errors import ConfigError
from hookseal.secrets.keyring import MasterKey
from hookseal.secrets.ref import Provider

MASTER_KEY: Final = "SECRETS_MASTER_KEY"
NEXT_KEY: Final = "SECRETS_MASTER_KEY_NEXT"
PREVIOUS_KEYS: Final = "SECRETS_MASTER_KEY_PREVIOUS"
KEY_NAMES: Final = (MASTER_KEY, NEXT_KEY, PREVIOUS_KEYS)
FORM: Final = "32 random bytes in base64"

_MOST_PREVIOUS: Final = 16


def _key(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    return _parsed(value, NEXT_KEY if info.field_name == "next_key" else MASTER_KEY)


def _keys(value: object) -> object:
    if not isinstance(value, str):
        return value
    texts = value.split(",")
    if len(texts) > _MOST_PREVIOUS:
        raise problem(f"{PREVIOUS_KEYS} has more than {_MOST_PREVIOUS} keys: take those out that no record needs")
    return tuple(_parsed(text, PREVIOUS_KEYS) for text in texts)


def _parsed(text: str, variable: str) -> MasterKey:
    try:
        return MasterKey.parse(text, variable=variable)
    except ConfigError as error:
        raise problem("\n".join(error.problems)) from None


Key = Annotated[InstanceOf[MasterKey] | None, BeforeValidator(_key)]
Keys = Annotated[tuple[InstanceOf[MasterKey], ...], BeforeValidator(_keys)]


def require_fitting(value: object, name: str, info: ValidationInfo) -> None:
    """Return only if the variable fits the provider, is not for others to read in production, and is there if needed.

    Raises a problem.
    """
    asked, provider = asked_of(info), info.data.get("provider")
    if name == MASTER_KEY and provider is Provider.DB and Part.SECRETS in asked.needs and name not in asked.named:
        raise problem(
            f"{MASTER_KEY} is not set: db needs {FORM}, for instance from `openssl rand -base64 32`, "
            f"best in a file that {MASTER_KEY}_FILE names"
        )
    if value and provider is Provider.DEV:
        raise problem(f"{name} does nothing with SECRETS_PROVIDER dev: remove it, or use db")
    if name in asked.exposed and info.data.get("environment") is Environment.PRODUCTION:
        raise problem(f"{name}_FILE names a file that others may read: take that right away (chmod 0400)")


def require_once(keys: tuple[MasterKey, ...], name: str, info: ValidationInfo) -> None:
    """Return only if none of the variable's keys was given before, by this variable or another. Raises a problem."""
    named = [(MASTER_KEY, info.data.get("master_key")), (NEXT_KEY, info.data.get("next_key"))]
    before = [(variable, key) for variable, key in named if isinstance(key, MasterKey)]
    for key in keys:
        for variable, other in before:
            if key.is_same_key(other):
                raise problem(f"{name} repeats the key of {variable}: take it out of one of them")
        before.append((name, key))
