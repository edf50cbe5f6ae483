"""The settings as frozen values. No repr of them shows a password or a key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NoReturn

from hookseal.dispatcher.core.endpoint_rules import RECORDING_SECONDS
from hookseal.dispatcher.core.url import AllowedNetwork
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import Defect
from hookseal.ground.log import LogFormat, LogLevel
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.wrapped import KmsSettings, WrappedKey
from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.resolve.cache import CacheLimits
from hookseal.secrets.store.port import NO_ACCESS, Access

MAX_PROCESSES: Final = 64  # of one parent; one machine has no use for more


class Environment(StrEnum):
    """Where this process runs; production is the default."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"


class Part(StrEnum):
    """A group of settings that some commands need."""

    DATABASE = "DATABASE_URL"
    REDIS = "REDIS_URL"
    SECRETS = "SECRETS_PROVIDER"


class _WithPassword:
    """A url with credentials, which refuses to be copied or pickled."""

    __slots__ = ()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("settings with a password cannot be copied or pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database(_WithPassword):
    """PostgreSQL. `address` is for messages and has no credentials; `variable` is the variable with the url.

    `read_again` is there if the url came from a file which may be read again.
    """

    url: str = field(repr=False)
    address: str
    variable: str = "DATABASE_URL"
    application_name: str | None = None
    read_again: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def current_url(self) -> str:
        """Return the url for the next connection: with the user and the password that its file has now."""
        return self.url if self.read_again is None else self.read_again()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis(_WithPassword):
    """Redis or Valkey. `address` is for messages and has no credentials; `variable` is the variable with the url.

    `read_again` is there if the url came from a file which may be read again.
    """

    url: str = field(repr=False)
    address: str
    variable: str = "REDIS_URL"
    read_again: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def current_url(self) -> str:
        """Return the url for the next connection: with the user and the password that its file has now."""
        return self.url if self.read_again is None else self.read_again()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKeys:
    """The master keys that a KMS must unwrap first."""

    current: WrappedKey | None = None
    next: WrappedKey | None = None
    previous: tuple[WrappedKey, ...] = ()

    @property
    def all(self) -> tuple[WrappedKey, ...]:
        """All of them."""
        return tuple(key for key in (self.current, self.next, *self.previous) if key is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secret store. The provider `db` has a master key and may have the others; `dev` has none.

    Keys that a KMS has wrapped are in `wrapped` until `with_unwrapped` gives settings with the keys themselves.
    """

    provider: Provider
    master_key: MasterKey | None = field(repr=False)
    next_key: MasterKey | None = field(repr=False)
    previous_keys: tuple[MasterKey, ...] = field(repr=False)
    cache: CacheLimits
    rotation_overlap_seconds: int
    retired_retention_days: int
    access: Access = NO_ACCESS
    wrapped: WrappedKeys = field(default_factory=WrappedKeys, repr=False)

    def with_unwrapped(self, keys: Mapping[str, MasterKey]) -> "Secrets":
        """Return these settings with the unwrapped keys, which are given by their ids."""
        wrapped = self.wrapped
        return replace(
            self,
            master_key=self.master_key if wrapped.current is None else keys[wrapped.current.key_id],
            next_key=self.next_key if wrapped.next is None else keys[wrapped.next.key_id],
            previous_keys=(*self.previous_keys, *(keys[key.key_id] for key in wrapped.previous)),
            wrapped=WrappedKeys(),
        )

    @property
    def keyring(self) -> KeyRing | None:
        """All master keys of this process. Raises `ConfigError` if two of them have one id."""
        self._require_unwrapped()
        others = self.previous_keys if self.next_key is None else (self.next_key, *self.previous_keys)
        return None if self.master_key is None else KeyRing(self.master_key, others)

    @property
    def registered_keyring(self) -> KeyRing | None:
        """The keyring without the next key, which may not be registered yet."""
        self._require_unwrapped()
        return None if self.master_key is None else KeyRing(self.master_key, self.previous_keys)

    def _require_unwrapped(self) -> None:
        if self.wrapped.all:
            raise Defect("the master keys are used before the KMS has unwrapped them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The limits and time-outs of a worker."""

    concurrency: int
    endpoint_concurrency: int
    endpoint_concurrency_peak: int
    processes: int
    sweep_seconds: int
    lease_seconds: int
    drain_seconds: int
    queue: str
    listen: bool
    held_days: int
    disable_after_seconds: int
    retention_days: int
    metrics_tenants: int

    @property
    def longest_request_seconds(self) -> int:
        """The longest duration of one request that leaves time to record its outcome within a drain."""
        return self.drain_seconds - RECORDING_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """The targets of requests besides public https addresses, the proxy, and extra certificate authorities as PEM."""

    allow: tuple[AllowedNetwork, ...]
    allow_http: bool
    proxy: EgressProxy | None = None
    trusted: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Where the probes listen; port 0 picks a free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where the HTTP API listens; port 0 picks a free one. New endpoints sign in `scheme`; `origins` are for CORS.

    A token may send `rate` requests a second. `portal_url` is the address of the pages, without a slash at its end.
    """

    host: str
    port: int
    scheme: Scheme
    origins: tuple[str, ...]
    rate: int
    portal_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal:
    """How the pages look, as texts that `pages.Look` checks, and the origins whose pages may frame them."""

    name: str
    accent: str
    logo: str | None
    language: str
    time_zone: str
    frames: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The log level, and the log format, which is not `auto` in production.

    `successes_per_line`: of so many successful attempts one is logged; 0: none.
    """

    level: LogLevel
    style: LogFormat
    successes_per_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `database`, `redis` and `secrets` are present if the load required them.

    `listen_database` is the direct way to PostgreSQL, if `database` goes through a pooler. `kms` wraps master keys, and
    `openbao` is what a store or a KMS of that name asks. With `traces` spans are sent by OTLP. `unknown` names what is
    set, is no setting and is ignored.
    """

    environment: Environment
    worker: Worker
    egress: Egress
    health: Health
    api: Api
    portal: Portal
    log: Log
    loaded_database: Database | None
    loaded_redis: Redis | None
    loaded_secrets: Secrets | None
    listen_database: Database | None = None
    kms: KmsSettings | None = None
    openbao: OpenBaoServer | None = field(default=None, repr=False)
    traces: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def database(self) -> Database:
        """Return how to reach PostgreSQL. Raises `Defect` if the load did not require it."""
        return self.loaded_database or _not_requested(Part.DATABASE)

    @property
    def redis(self) -> Redis:
        """Return how to reach Redis. Raises `Defect` if the load did not require it."""
        return self.loaded_redis or _not_requested(Part.REDIS)

    @property
    def secrets(self) -> Secrets:
        """Return how secrets are stored. Raises `Defect` if the load did not require it."""
        return self.loaded_secrets or _not_requested(Part.SECRETS)


def _not_requested(part: Part) -> NoReturn:
    raise Defect(f"{part} is used, but the load of the settings did not require it")
