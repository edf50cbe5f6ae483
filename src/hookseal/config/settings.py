"""The settings as frozen values. None of them shows a password or a key in its repr."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from hookseal.dispatcher.address import AllowedNetwork
from hookseal.dispatcher.endpoint_rules import RECORDING_SECONDS
from hookseal.dispatcher.tunnel import EgressProxy
from hookseal.ground.errors import Defect
from hookseal.ground.log import LogFormat, LogLevel
from hookseal.secrets.cache import CacheLimits
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.ref import Provider


class Environment(StrEnum):
    """Where this process runs; production unless another is asked for by name."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"


class Part(StrEnum):
    """A part that some commands need and others do without."""

    DATABASE = "DATABASE_URL"
    REDIS = "REDIS_URL"
    SECRETS = "SECRETS_PROVIDER"


class _WithPassword:
    """Holds a url with what logs in: it is neither copied nor pickled."""

    __slots__ = ()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("settings with a password are neither copied nor pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database(_WithPassword):
    """PostgreSQL: `address` is for messages and holds neither user nor password; `variable` named it."""

    url: str = field(repr=False)
    address: str
    variable: str = "DATABASE_URL"
    application_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis(_WithPassword):
    """Redis or Valkey: `address` is for messages and holds neither user nor password; `variable` named it."""

    url: str = field(repr=False)
    address: str
    variable: str = "REDIS_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secret store; the master key is there if the provider is `db`, and only then, and so are the others."""

    provider: Provider
    master_key: MasterKey | None = field(repr=False)
    next_key: MasterKey | None = field(repr=False)
    previous_keys: tuple[MasterKey, ...] = field(repr=False)
    cache: CacheLimits
    rotation_overlap_seconds: int
    retired_retention_days: int

    @property
    def keyring(self) -> KeyRing | None:
        """Every master key that this process was given. Raises `ConfigError` if two of them have one id."""
        others = self.previous_keys if self.next_key is None else (self.next_key, *self.previous_keys)
        return None if self.master_key is None else KeyRing(self.master_key, others)

    @property
    def settled_keyring(self) -> KeyRing | None:
        """The same without the next key, which may not be registered yet."""
        return None if self.master_key is None else KeyRing(self.master_key, self.previous_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """How much a worker takes, and how long it waits."""

    concurrency: int
    sweep_seconds: int
    lease_seconds: int
    drain_seconds: int
    queue: str
    listen: bool
    held_days: int

    @property
    def longest_request_seconds(self) -> int:
        """How long one request may take, so that it can end and be recorded within a drain."""
        return self.drain_seconds - RECORDING_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Where requests may go besides public https addresses, by which proxy, and whom they trust, as PEM, besides."""

    allow: tuple[AllowedNetwork, ...]
    allow_http: bool
    proxy: EgressProxy | None = None
    trusted: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Where the probes answer; port 0 takes a free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """How much is logged, and in which form."""

    level: LogLevel
    style: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `database`, `redis` and `secrets` are there for those who asked for them at load."""

    environment: Environment
    worker: Worker
    egress: Egress
    health: Health
    log: Log
    loaded_database: Database | None
    loaded_redis: Redis | None
    loaded_secrets: Secrets | None

    @property
    def database(self) -> Database:
        """Return how PostgreSQL is reached. Raises `Defect` if load was not asked for it."""
        return self.loaded_database or _not_asked_for(Part.DATABASE)

    @property
    def redis(self) -> Redis:
        """Return how Redis is reached. Raises `Defect` if load was not asked for it."""
        return self.loaded_redis or _not_asked_for(Part.REDIS)

    @property
    def secrets(self) -> Secrets:
        """Return how secrets are kept. Raises `Defect` if load was not asked for it."""
        return self.loaded_secrets or _not_asked_for(Part.SECRETS)


def _not_asked_for(part: Part) -> NoReturn:
    raise Defect(f"{part} is used, but was not asked for when the settings were loaded")
