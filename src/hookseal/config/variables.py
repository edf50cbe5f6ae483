"""The variables: one model that parses them, and the table that the settings page is written from.

Each field's alias is the variable, its title the form that a value must have, its description what
it means. Messages are made of names and forms only, never of values.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationInfo, field_validator

from hookseal.config import egress, keys, urls
from hookseal.config.problems import asked_of, problem
from hookseal.config.settings import Database, Environment, Part, Redis
from hookseal.dispatcher.address import AllowedNetwork
from hookseal.dispatcher.tunnel import EgressProxy
from hookseal.ground.log import LogFormat, LogLevel
from hookseal.secrets.keyring import MasterKey
from hookseal.secrets.ref import Provider

_PROVIDERS: Final = frozenset({Provider.DB, Provider.DEV})
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_FLAGS: Final = {"true": True, "false": False}


def _whole(value: object) -> object:
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value


def _flag(value: object) -> object:
    return _FLAGS.get(value) if isinstance(value, str) else value


def _provider(value: object) -> object:
    if value in frozenset(Provider) - _PROVIDERS:
        raise problem("SECRETS_PROVIDER names a store that is not in this version yet: it must be db or dev")
    return value


def _parsed(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _number(alias: str, default: int, bounds: tuple[int, int], description: str) -> Any:
    least, most = bounds
    title = f"a whole number from {least} to {most}"
    return Field(default=default, ge=least, le=most, alias=alias, title=title, description=description)


Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]


class Variables(BaseModel):
    """The variables of this version, in the order in which their problems are told."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    environment: Environment = Field(
        default=Environment.PRODUCTION,
        alias="HOOKSEAL_ENV",
        title="production, development or test",
        description="Where this process runs. What only helps development is refused in production.",
    )
    database: Annotated[InstanceOf[Database] | None, _parsed(urls.database)] = Field(
        default=None,
        alias="DATABASE_URL",
        repr=False,
        title="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, percent-encoded",
        description="PostgreSQL 14 or newer, which keeps everything.",
    )
    redis: Annotated[InstanceOf[Redis] | None, _parsed(urls.redis)] = Field(
        default=None,
        alias="REDIS_URL",
        repr=False,
        title="redis:// or rediss://USER:PASSWORD@HOST:PORT/NUMBER, percent-encoded, or unix:///PATH",
        description="Redis 6.2 or newer, or Valkey, which rings the worker.",
    )
    provider: Annotated[Provider | None, BeforeValidator(_provider)] = Field(
        default=None,
        alias="SECRETS_PROVIDER",
        title="db or dev",
        description="Where secrets are kept: `db` seals them in PostgreSQL; `dev` is the memory of one process, "
        "for tests, and refused in production. There is no default.",
    )
    master_key: keys.Key = Field(
        default=None,
        alias=keys.MASTER_KEY,
        repr=False,
        title=keys.FORM,
        description="The key that seals the secrets of `db`. Make one with `openssl rand -base64 32`. While master "
        "keys are changed, the table of keys says which of those that are held seals.",
    )
    next_key: keys.Key = Field(
        default=None,
        alias=keys.NEXT_KEY,
        repr=False,
        title=keys.FORM,
        description="The key that shall seal next: first `hookseal key stage` registers it, then every worker gets it.",
    )
    previous_keys: keys.Keys = Field(
        default=(),
        alias=keys.PREVIOUS_KEYS,
        repr=False,
        title="keys of that form, with commas between",
        description="Keys that sealed before, for as long as a record, or a backup that may be restored, needs them.",
    )
    cache_ttl_seconds: Whole = _number(
        "SECRETS_CACHE_TTL_SECONDS",
        300,
        (0, 3_600),
        description="How long a secret is kept in memory, sealed, before the store is asked for it again; each between "
        "half of this and all of it. 0 keeps none.",
    )
    cache_max_entries: Whole = _number(
        "SECRETS_CACHE_MAX_ENTRIES",
        10_000,
        (1, 1_000_000),
        description="How many secrets are kept in memory at most; the least recently used leave first.",
    )
    cache_max_bytes: Whole = _number(
        "SECRETS_CACHE_MAX_BYTES",
        16_777_216,
        (131_072, 536_870_912),
        description="How many bytes of sealed secrets are kept in memory at most.",
    )
    rotation_overlap_seconds: Whole = _number(
        "SECRETS_ROTATION_OVERLAP_SECONDS",
        86_400,
        (0, 604_800),
        description="How long the previous secret of an endpoint signs beside the new one, unless a rotation says "
        "otherwise. 0 makes every rotation a revocation; one by schedule gives at least 86400.",
    )
    retired_retention_days: Whole = _number(
        "SECRETS_RETIRED_RETENTION_DAYS",
        90,
        (1, 3_650),
        description="How long the material of a version is kept after it was retired. A worker then destroys it.",
    )
    concurrency: Whole = _number(
        "HOOKSEAL_CONCURRENCY",
        500,
        (1, 10_000),
        description="Requests in flight at most in one worker.",
    )
    sweep_seconds: Whole = _number(
        "HOOKSEAL_SWEEP_SECONDS",
        15,
        (1, 300),
        description="How late at most a delivery whose ring was lost is rung again. Workers look four times in it.",
    )
    lease_seconds: Whole = _number(
        "HOOKSEAL_LEASE_SECONDS",
        45,
        (7, 3_600),
        description="How long a claimed delivery belongs to a worker that gives no sign of life.",
    )
    drain_seconds: Whole = Field(
        default=25,
        ge=6,
        le=3_600,
        alias="HOOKSEAL_DRAIN_SECONDS",
        title="a whole number from 6 to 3600, and smaller than HOOKSEAL_LEASE_SECONDS",
        description="How long a worker that is told to stop waits for its requests in flight. No request takes longer "
        "than five seconds less.",
    )
    queue: str = Field(
        default="hookseal:deliveries",
        pattern=r"^[A-Za-z0-9:._-]{1,128}\z",
        alias="HOOKSEAL_QUEUE",
        title="1 to 128 characters of A-Z, a-z, 0-9, ':', '.', '_' and '-'",
        description="The arq queue in Redis.",
    )
    listen: Flag = Field(
        default=False,
        alias="HOOKSEAL_LISTEN",
        title="true or false",
        description="Whether publish tells the workers at once (LISTEN), so that what nobody rang does not wait for "
        "the next look of the outbox, at most 0.2 seconds away. It costs producers about half of their commit rate, "
        "and does not work through a pooler in transaction mode.",
    )
    held_days: Whole = _number(
        "HOOKSEAL_HELD_DAYS", 7, (1, 30), description="How long a delivery waits for a disabled endpoint; then it ends."
    )
    health_host: str = Field(
        default="127.0.0.1",
        pattern=r"^[A-Za-z0-9:._-]{1,253}\z",
        alias="HOOKSEAL_HEALTH_HOST",
        title="an address or a host name",
        description="Where the probes of a worker answer.",
    )
    health_port: Whole = _number(
        "HOOKSEAL_HEALTH_PORT",
        8080,
        (0, 65_535),
        description="The port of the probes; 0 takes a free one.",
    )
    egress_allow: Annotated[tuple[InstanceOf[AllowedNetwork], ...], _parsed(egress.networks)] = Field(
        default=(),
        alias="HOOKSEAL_EGRESS_ALLOW",
        title="networks with commas between, each CIDR or CIDR@tenant, for instance 10.1.0.0/16@acme",
        description="Networks that may be dialled although they are not public, for all tenants or for one.",
    )
    egress_proxy: Annotated[InstanceOf[EgressProxy] | None, _parsed(egress.proxy)] = Field(
        default=None,
        alias=egress.PROXY,
        repr=False,
        title="http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, percent-encoded",
        description="An HTTP proxy by which every request leaves, through a tunnel (CONNECT) to an address that was "
        "resolved and checked here. It alone may be at an address that is not public.",
    )
    egress_trusted: Annotated[str | None, _parsed(egress.certificates)] = Field(
        default=None,
        alias=egress.CA_FILE,
        repr=False,
        title="the path of a file of certificates in PEM form",
        description="Authorities that receivers' certificates may come from besides those that the system trusts.",
    )
    allow_http: Flag = Field(
        default=False,
        alias="HOOKSEAL_ALLOW_HTTP",
        title="true or false",
        description="Whether endpoints may be http. `true` is refused in production.",
    )
    log_level: LogLevel = Field(
        default="info",
        alias="HOOKSEAL_LOG_LEVEL",
        title="debug, info, warning or error",
        description="From which level on logs are written.",
    )
    log_format: LogFormat = Field(
        default="json",
        alias="HOOKSEAL_LOG_FORMAT",
        title="json or console",
        description="One JSON object a line, or lines for a person.",
    )

    @field_validator("database", "redis", "provider")
    @classmethod
    def _is_there_if_needed(cls, value: object, info: ValidationInfo) -> object:
        name, asked = _alias(info), asked_of(info)
        if value is None and Part(name) in asked.needs and name not in asked.named:
            raise problem(f"{name} is not set: it must be {_title(info)}")
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
    def _is_a_key_of_ours(cls, value: MasterKey | None, info: ValidationInfo) -> MasterKey | None:
        keys.require_fitting(value, _alias(info), info)
        if value is not None and _alias(info) == keys.NEXT_KEY:
            keys.require_once((value,), keys.NEXT_KEY, info)
        return value

    @field_validator("previous_keys")
    @classmethod
    def _are_keys_of_ours(cls, value: tuple[MasterKey, ...], info: ValidationInfo) -> tuple[MasterKey, ...]:
        keys.require_fitting(value, keys.PREVIOUS_KEYS, info)
        keys.require_once(value, keys.PREVIOUS_KEYS, info)
        return value

    @field_validator("drain_seconds")
    @classmethod
    def _ends_before_the_lease(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("lease_seconds", value + 1):
            raise problem("HOOKSEAL_DRAIN_SECONDS must be smaller than HOOKSEAL_LEASE_SECONDS")
        return value

    @field_validator("allow_http")
    @classmethod
    def _is_https_in_production(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        if value and info.data.get("environment") is Environment.PRODUCTION:
            raise problem("HOOKSEAL_ALLOW_HTTP may be true only outside production: remove it")
        return value


NAMES: Final = {field.alias or name: field for name, field in Variables.model_fields.items()}


def _alias(info: ValidationInfo) -> str:
    return Variables.model_fields[info.field_name or ""].alias or ""


def _title(info: ValidationInfo) -> str:
    return Variables.model_fields[info.field_name or ""].title or ""
