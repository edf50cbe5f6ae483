"""The variables of the servers and of the secrets: the first part of the table in `variables`.

Messages contain names and forms only, never values.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from hookseal.config import keys, openbao, urls
from hookseal.config.forms import Whole, parse_with, whole_number
from hookseal.config.problems import load_request, problem
from hookseal.config.settings import Database, Environment, Part, Redis
from hookseal.secrets.kms.wrapped import FORM, KMS_FORM, WrappedKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider
from hookseal.secrets.sealing.keyring import MasterKey


class SecretVariables(BaseModel):
    """Where data and secrets are, and the keys, in the order in which problems are reported."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    environment: Environment = Field(
        default=Environment.PRODUCTION,
        alias="HOOKSEAL_ENV",
        title="production, development or test",
        description="Where this process runs. Production refuses settings that are for development only.",
    )
    database: Annotated[InstanceOf[Database] | None, parse_with(urls.database)] = Field(
        default=None,
        alias="DATABASE_URL",
        repr=False,
        title="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, percent-encoded",
        description="PostgreSQL 14 or newer, which stores everything.",
    )
    redis: Annotated[InstanceOf[Redis] | None, parse_with(urls.redis)] = Field(
        default=None,
        alias="REDIS_URL",
        repr=False,
        title="redis:// or rediss://USER:PASSWORD@HOST:PORT/NUMBER, percent-encoded, or unix:///PATH",
        description="Redis 6.2 or newer, or Valkey, which notifies the workers of new deliveries.",
    )
    provider: Provider | None = Field(
        default=None,
        alias="SECRETS_PROVIDER",
        title="db, aws, gcp, openbao or dev",
        description="Where new secrets are stored: `db` seals them in PostgreSQL; `aws`, `gcp` and `openbao` keep them "
        "in a secret manager ([guide/providers.md](guide/providers.md)); `dev` is the memory of one process, "
        "for tests, and is refused in production. There is no default.",
    )
    master_key: keys.Key = Field(
        default=None,
        alias=keys.MASTER_KEY,
        repr=False,
        title=keys.FORM,
        description="The key that seals the secrets of `db`. Make one with `openssl rand -base64 32`. During a change "
        "of the master key, the table of keys says which of the configured keys is active.",
    )
    next_key: keys.Key = Field(
        default=None,
        alias=keys.NEXT_KEY,
        repr=False,
        title=keys.FORM,
        description="The next active key: register it with `hookseal key stage`, then configure it on every worker.",
    )
    previous_keys: keys.Keys = Field(
        default=(),
        alias=keys.PREVIOUS_KEYS,
        repr=False,
        title="keys of that form, separated by commas",
        description="Former active keys, as long as a record or a backup that may be restored needs them.",
    )
    kms: keys.KmsName = Field(
        default=None,
        alias=keys.KMS,
        title=KMS_FORM,
        description="The KMS that keeps the master key ([guide/kms.md](guide/kms.md)).",
    )
    kms_installation: keys.Installation = Field(
        default=None,
        alias=keys.INSTALLATION,
        title="1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-', the first a letter or digit",
        description="The name of this installation, to which its wrapped keys are bound: the KMS unwraps the keys of "
        "another one for nobody who has this name. It is needed with `SECRETS_KMS`, and does not change later.",
    )
    wrapped_key: keys.Wrapped = Field(
        default=None,
        alias=keys.WRAPPED_KEY,
        repr=False,
        title=FORM,
        description="In place of `SECRETS_MASTER_KEY`: the same key, which only the KMS can read. It is unwrapped "
        "once, at the start of each process.",
    )
    next_wrapped_key: keys.Wrapped = Field(
        default=None,
        alias=keys.NEXT_WRAPPED_KEY,
        repr=False,
        title=FORM,
        description="In place of `SECRETS_MASTER_KEY_NEXT`.",
    )
    previous_wrapped_keys: keys.WrappedList = Field(
        default=(),
        alias=keys.PREVIOUS_WRAPPED_KEYS,
        repr=False,
        title="wrapped keys, separated by commas",
        description="In place of `SECRETS_MASTER_KEY_PREVIOUS`.",
    )
    bao_address: Annotated[str | None, parse_with(openbao.address)] = Field(
        default=None,
        alias=openbao.ADDRESS,
        title="https://HOST:PORT",
        description="OpenBao or Vault. This and the variables that begin with `BAO_` are read only if "
        "`SECRETS_PROVIDER`, `SECRETS_ALSO_READ` or `SECRETS_KMS` names OpenBao. In production `http` is for an "
        "address of this machine only.",
    )
    bao_token: Annotated[InstanceOf[SecretMaterial] | None, parse_with(openbao.token)] = Field(
        default=None,
        alias=openbao.TOKEN,
        repr=False,
        title="a token of printable ASCII characters",
        description="The token for OpenBao. hookseal renews it while it runs, if its policy permits that, and reads "
        "its file again.",
    )
    bao_role_id: Annotated[str | None, Field(pattern=r"^[!-~]{1,256}\z")] = Field(
        default=None,
        alias=openbao.ROLE_ID,
        title="1 to 256 printable ASCII characters without spaces",
        description="The role of a login by AppRole, in place of a token.",
    )
    bao_secret_id: Annotated[InstanceOf[SecretMaterial] | None, parse_with(openbao.token)] = Field(
        default=None,
        alias=openbao.SECRET_ID,
        repr=False,
        title="a secret id of printable ASCII characters",
        description="The secret id of that role. It is used for a first login, and for another when the token cannot "
        "be renewed any more; its file is read for each.",
    )
    bao_namespace: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_./-]{1,256}\z")] = Field(
        default=None,
        alias=openbao.NAMESPACE,
        title="1 to 256 characters of A-Z, a-z, 0-9, '_', '.', '/' and '-'",
        description="The namespace of OpenBao in which all paths are.",
    )
    bao_authorities: Annotated[str | None, parse_with(openbao.authorities)] = Field(
        default=None,
        alias=openbao.AUTHORITIES,
        repr=False,
        title="the path of a file with certificates in PEM form",
        description="The certificate authorities that OpenBao's certificate is checked against, in place of those of "
        "the system.",
    )
    cache_ttl_seconds: Whole = whole_number(
        "SECRETS_CACHE_TTL_SECONDS",
        300,
        (0, 3_600),
        description="How long a secret stays in memory, sealed, before it is read from the store again; the time of "
        "each is between half of this and all of it. 0 disables the cache.",
    )
    cache_max_entries: Whole = whole_number(
        "SECRETS_CACHE_MAX_ENTRIES",
        10_000,
        (1, 1_000_000),
        description="The most secrets in the cache; the least recently used are removed first.",
    )
    cache_max_bytes: Whole = whole_number(
        "SECRETS_CACHE_MAX_BYTES",
        16_777_216,
        (131_072, 536_870_912),
        description="The most bytes of sealed secrets in the cache.",
    )
    rotation_overlap_seconds: Whole = whole_number(
        "SECRETS_ROTATION_OVERLAP_SECONDS",
        86_400,
        (0, 604_800),
        description="How long the previous secret of an endpoint also signs after a rotation, unless the rotation "
        "says otherwise. 0 makes every rotation a revocation; a scheduled rotation uses at least 86400.",
    )
    retired_retention_days: Whole = whole_number(
        "SECRETS_RETIRED_RETENTION_DAYS",
        90,
        (1, 3_650),
        description="How long the secret of a retired version is stored. A worker then destroys it.",
    )

    @field_validator("database", "redis", "provider")
    @classmethod
    def _is_present_if_needed(cls, value: object, info: ValidationInfo) -> object:
        name, request = _alias(info), load_request(info)
        if value is None and Part(name) in request.needs and name not in request.present:
            raise problem(f"{name} is not set: it must be {_field(info).title}")
        return value

    @field_validator("provider")
    @classmethod
    def _is_not_dev_in_production(cls, value: Provider | None, info: ValidationInfo) -> Provider | None:
        if value is Provider.DEV and info.data.get("environment") is Environment.PRODUCTION:
            raise problem(
                "SECRETS_PROVIDER may not be dev in production, where it would lose every secret at a restart: use db"
            )
        return value

    @field_validator("master_key", "next_key")
    @classmethod
    def _is_a_usable_key(cls, value: MasterKey | None, info: ValidationInfo) -> MasterKey | None:
        keys.require_consistent(value, _alias(info), info)
        if value is not None and _alias(info) == keys.NEXT_KEY:
            keys.require_distinct((value,), keys.NEXT_KEY, info)
        return value

    @field_validator("previous_keys")
    @classmethod
    def _are_usable_keys(cls, value: tuple[MasterKey, ...], info: ValidationInfo) -> tuple[MasterKey, ...]:
        keys.require_consistent(value, keys.PREVIOUS_KEYS, info)
        keys.require_distinct(value, keys.PREVIOUS_KEYS, info)
        return value

    @field_validator("kms_installation")
    @classmethod
    def _is_named_with_a_kms(cls, value: str | None, info: ValidationInfo) -> str | None:
        keys.require_installation(value, info)
        return value

    @field_validator("wrapped_key", "next_wrapped_key")
    @classmethod
    def _is_a_usable_wrapped_key(cls, value: WrappedKey | None, info: ValidationInfo) -> WrappedKey | None:
        keys.require_unwrappable(value, _alias(info), info)
        if value is not None:
            keys.require_distinct((value,), _alias(info), info)
        return value

    @field_validator("previous_wrapped_keys")
    @classmethod
    def _are_usable_wrapped_keys(cls, value: tuple[WrappedKey, ...], info: ValidationInfo) -> tuple[WrappedKey, ...]:
        keys.require_unwrappable(value, keys.PREVIOUS_WRAPPED_KEYS, info)
        keys.require_distinct(value, keys.PREVIOUS_WRAPPED_KEYS, info)
        return value

    @field_validator("bao_token", "bao_secret_id")
    @classmethod
    def _is_in_a_private_file(cls, value: SecretMaterial | None, info: ValidationInfo) -> SecretMaterial | None:
        keys.require_private_file(_alias(info), info)
        return value

    @field_validator("bao_address")
    @classmethod
    def _is_encrypted(cls, value: str | None, info: ValidationInfo) -> str | None:
        openbao.require_private(value, info)
        return value


def _field(info: ValidationInfo) -> FieldInfo:
    return SecretVariables.model_fields[info.field_name or ""]


def _alias(info: ValidationInfo) -> str:
    return _field(info).alias or ""
