"""Every variable that hookseal reads, in one table that reads from top to bottom."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from hookseal.config import api, egress, keys, openbao, providers, urls
from hookseal.config.forms import (
    Days,
    Flag,
    Seconds,
    Whole,
    duration,
    in_any_case,
    load_request,
    parse_with,
    problem,
    successes_per_line,
    whole_number,
)
from hookseal.config.settings import MAX_PROCESSES, Database, Environment, Part, Redis
from hookseal.config.tracing import Tracing
from hookseal.dispatcher.core.endpoint_rules import HELD_DAYS
from hookseal.dispatcher.core.url import AllowedNetwork
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.ground.log import LogFormat, LogLevel
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.wrapped import FORM, KMS_FORM, WrappedKey
from hookseal.secrets.store.port import DEFAULT_PREFIX

# An address, or labels that Python takes for the name of a host.
_HOST: Final = r"^[A-Za-z0-9:_-]{1,63}(?:\.[A-Za-z0-9:_-]{1,63})*\.?\z"


class Variables(BaseModel):
    """The variables of this version, in the order in which problems are reported and docs/settings.md lists them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    # --- where this process runs, and PostgreSQL and Redis ---

    environment: Environment = Field(
        default=Environment.PRODUCTION,
        alias="HOOKSEAL_ENV",
        title="production, development or test",
        description="Where this process runs. Production refuses settings that are for development only.",
    )
    unknown_settings: Annotated[Literal["refuse", "warn"], BeforeValidator(in_any_case)] = Field(
        default="refuse",
        alias="HOOKSEAL_UNKNOWN_SETTINGS",
        title="refuse or warn, in any case",
        description="What a name that is no setting of this version does: it ends the process, or is logged once, "
        "without its value, and ignored. `warn` lets you roll back to a version that lacks a setting.",
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
        description="Redis 6.2 or newer, or Valkey, which notifies the workers of new deliveries. Only [these "
        "parameters](#parameters-of-the-url-of-redis) are allowed in it.",
    )
    # --- secrets: where they are stored, and the master keys ---

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
    # --- OpenBao or Vault ---

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
    # --- the cache, rotations and old secrets ---

    cache_ttl_seconds: Seconds = duration(
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
    rotation_overlap_seconds: Seconds = duration(
        "SECRETS_ROTATION_OVERLAP_SECONDS",
        86_400,
        (0, 604_800),
        description="How long the previous secret of an endpoint also signs after a rotation, unless the rotation "
        "says otherwise. 0 makes every rotation a revocation; a scheduled rotation uses at least 86400.",
    )
    retired_retention_days: Days = duration(
        "SECRETS_RETIRED_RETENTION_DAYS",
        90,
        (1, 3_650),
        description="How long the secret of a retired version is stored. A worker then destroys it.",
    )
    # --- providers outside PostgreSQL ---

    also_read: Annotated[InstanceOf[frozenset], parse_with(providers.also_read)] = Field(  # type: ignore[type-arg]
        default=frozenset(),
        alias=providers.ALSO_READ,
        title="aws, gcp and openbao, separated by commas",
        description="Providers outside PostgreSQL whose secrets are read, too: during a move from one provider to "
        "another ([guide/providers.md](guide/providers.md)). The secrets of `db` are read if there is a master key.",
    )
    name_prefix: str = Field(
        default=DEFAULT_PREFIX,
        pattern=r"^[a-z][a-z0-9-]{0,31}\z",
        alias=providers.PREFIX,
        title="1 to 32 characters of a-z, 0-9 and '-', the first a letter",
        description="What the names of all secrets begin with at a provider outside PostgreSQL. Two installations that "
        "share an account need two prefixes. It never changes once a secret is stored there.",
    )
    aws_region: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,64}\z",
        alias=providers.REGION,
        title="the name of a region, such as eu-central-1",
        description="The region of AWS Secrets Manager, for `aws`; `AWS_DEFAULT_REGION` counts if it is not set. "
        "Credentials are found the way every AWS client finds them.",
    )
    aws_role: str | None = Field(
        default=None,
        pattern=r"^arn:[a-z-]{1,32}:iam::[0-9]{12}:role/[!-~]{1,512}\z",
        alias=providers.ROLE,
        title="arn:aws:iam::ACCOUNT:role/NAME",
        description="The role that hookseal assumes for AWS Secrets Manager, for `aws`.",
    )
    google_project: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.:-]{0,63}\z",
        alias=providers.PROJECT,
        title="the id of a project",
        description="The project of Google Secret Manager, for `gcp`. Credentials are found the way every Google "
        "client finds them, for instance by `GOOGLE_APPLICATION_CREDENTIALS`.",
    )
    bao_mount: str = Field(
        default="secret",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_./-]{0,127}\z",
        alias=providers.MOUNT,
        title="1 to 128 characters of A-Z, a-z, 0-9, '_', '.', '/' and '-'",
        description="Where the engine KV, version 2, is mounted, for `openbao`.",
    )
    # --- the worker ---

    concurrency: Whole = whole_number(
        "HOOKSEAL_CONCURRENCY",
        500,
        (1, 10_000),
        description="The most requests in flight in one worker process; with outcomes to record, twice as many.",
    )
    endpoint_concurrency: Whole = whole_number(
        "HOOKSEAL_ENDPOINT_CONCURRENCY",
        32,
        (1, 1_000),
        description="The most requests in flight to one endpoint, shared out among all live workers; `endpoint add "
        "--concurrency` sets another limit for one endpoint.",
    )
    endpoint_concurrency_peak: Whole = whole_number(
        "HOOKSEAL_ENDPOINT_CONCURRENCY_PEAK",
        256,
        (1, 1_000),
        description="What `HOOKSEAL_ENDPOINT_CONCURRENCY` may grow to for an endpoint that uses all of it and answers "
        "quickly, in each worker at most a quarter of `HOOKSEAL_CONCURRENCY`. It does not grow if this is not higher, "
        "or if only `HOOKSEAL_ENDPOINT_CONCURRENCY` is set. A limit of `endpoint add --concurrency` never grows.",
    )
    processes: Whole = Field(
        default=1,
        ge=1,
        le=MAX_PROCESSES,
        alias="HOOKSEAL_PROCESSES",
        title=f"a whole number from 1 to {MAX_PROCESSES}; for more processes start another `hookseal worker`",
        description="The processes of one `hookseal worker`; the option `--processes` takes precedence. Each process "
        "has its own concurrency, memory and up to 12 connections to PostgreSQL, or 13 with `HOOKSEAL_LISTEN`.",
    )
    sweep_seconds: Seconds = duration(
        "HOOKSEAL_SWEEP_SECONDS",
        15,
        (1, 300),
        description="How late at most a worker notices that Redis has lost a ring, and rings again. It looks four "
        "times within this time.",
    )
    lease_seconds: Seconds = duration(
        "HOOKSEAL_LEASE_SECONDS",
        45,
        (7, 3_600),
        description="How long a claim is valid. Then another worker may claim the delivery.",
    )
    drain_seconds: Seconds = Field(
        default=25,
        ge=6,
        le=3_600,
        alias="HOOKSEAL_DRAIN_SECONDS",
        title="a whole number from 6 to 3600, or a duration as 25s, and smaller than HOOKSEAL_LEASE_SECONDS",
        description="How long a stopping worker waits for its requests in flight. The longest request takes five "
        "seconds less.",
    )
    queue: str = Field(
        default="hookseal:deliveries",
        pattern=r"^[A-Za-z0-9:._-]{1,128}\z",
        alias="HOOKSEAL_QUEUE",
        title="1 to 128 characters of A-Z, a-z, 0-9, ':', '.', '_' and '-'",
        description="The arq queue in Redis. Its name with `:bell` is the key that wakes waiting workers.",
    )
    listen: Flag = Field(
        default=False,
        alias="HOOKSEAL_LISTEN",
        title="true or false",
        description="Whether PostgreSQL notifies the workers of new events (LISTEN), so that an event without a ring "
        "does not wait up to 0.3 seconds for the outbox. It costs producers about half of their commit rate if many "
        "commit at once, also those that ring after a transaction of their own. A `Publisher` that is given no "
        "`connection`, and rings, pays nothing. Behind a pooler it needs `HOOKSEAL_LISTEN_URL`.",
    )
    listen_database: Annotated[InstanceOf[Database] | None, parse_with(urls.listen_database)] = Field(
        default=None,
        alias=urls.LISTEN_URL,
        repr=False,
        title="a url of the form of DATABASE_URL",
        description="The direct url of the same database, without a pooler, for a worker that listens.",
    )
    # --- how long what is kept ---

    held_days: Days = duration(
        "HOOKSEAL_HELD_DAYS",
        HELD_DAYS,
        (1, 30),
        description="How long a delivery waits for a disabled endpoint before it ends.",
    )
    disable_after_seconds: Seconds = duration(
        "HOOKSEAL_DISABLE_AFTER_SECONDS",
        432_000,
        (3_600, 2_592_000),
        description="How long every attempt of an endpoint must fail before a worker disables it. Its deliveries then "
        "wait until `endpoint enable`.",
    )
    retention_days: Days = duration(
        "HOOKSEAL_RETENTION_DAYS",
        30,
        (1, 3_650),
        description="How long a finished delivery is kept with its attempts, and an event after its publish. A worker "
        "then deletes it; an event only once it has no delivery left.",
    )
    # --- health ---

    health_url: str | None = Field(
        default=None,
        pattern=r"^http://[A-Za-z0-9:.\[\]_-]{1,260}(/[a-z]*)?\z",
        alias="HOOKSEAL_HEALTH_URL",
        title="http://HOST:PORT, as the worker prints it in health_url",
        description="The worker that `hookseal check` asks. Without it, `check` asks the one on `HOOKSEAL_HEALTH_HOST` "
        "and `HOOKSEAL_HEALTH_PORT`. `hookseal up env` sets it.",
    )
    health_host: str = Field(
        default="127.0.0.1",
        pattern=_HOST,
        alias="HOOKSEAL_HEALTH_HOST",
        title="an address or a host name",
        description="The address on which the probes of a worker, or of `hookseal api`, listen.",
    )
    health_port: Whole = whole_number(
        "HOOKSEAL_HEALTH_PORT",
        8080,
        (0, 65_535),
        description="The port of the probes; 0 picks a free one. A worker and an API on one machine need two.",
    )
    metrics_tenants: Whole = whole_number(
        "HOOKSEAL_METRICS_TENANTS",
        10,
        (0, 100),
        description="How many tenants, and endpoints whose breaker is open, a metric names at once: those that have "
        "waited for longest. All other tenants are `_other`; with 0 none is named.",
    )
    # --- the HTTP API ---

    api_host: str = Field(
        default="127.0.0.1",
        pattern=_HOST,
        alias="HOOKSEAL_API_HOST",
        title="an address or a host name",
        description="The address on which `hookseal api` listens, in plain HTTP: put a proxy with TLS before it.",
    )
    api_port: Whole = whole_number(
        "HOOKSEAL_API_PORT", 8071, (0, 65_535), description="The port of `hookseal api`; 0 picks a free one."
    )
    api_scheme: Annotated[Scheme, BeforeValidator(in_any_case)] = Field(
        default=Scheme.STANDARD,
        alias="HOOKSEAL_API_SCHEME",
        title=" or ".join(Scheme),
        description="How endpoints that are created through the API sign ([wire.md](wire.md)).",
    )
    api_origins: Annotated[tuple[str, ...], parse_with(api.origins)] = Field(
        default=(),
        alias=api.ORIGINS,
        title="origins separated by commas, each https://HOST or https://HOST:PORT",
        description="The pages that may call the API from a browser (CORS). `http` is refused in production.",
    )
    api_rate: Whole = whole_number(
        "HOOKSEAL_API_RATE",
        2_000,
        (1, 1_000_000),
        description="How many requests a second one process answers for one token, and twice as many at once after a "
        "pause. Any more are answered with 429.",
    )
    # --- the pages ---

    portal_url: Annotated[str | None, parse_with(api.portal_url)] = Field(
        default=None,
        alias=api.PORTAL_URL,
        title="https://HOST, https://HOST:PORT, or one of these with a path",
        description="The address of the pages for customers as browsers see it, which links to them begin with. `http` "
        "is refused in production.",
    )
    portal_name: str = Field(
        default="Webhooks",
        max_length=64,
        alias="HOOKSEAL_PORTAL_NAME",
        title="up to 64 characters",
        description="What the [pages](pages.md) call themselves.",
    )
    portal_accent: str = Field(
        default="#1f5fbf",
        max_length=7,
        alias="HOOKSEAL_PORTAL_ACCENT",
        title="a colour as `#1f5fbf`",
        description="The colour of buttons and links on the pages.",
    )
    portal_logo: str | None = Field(
        default=None,
        max_length=1_024,
        alias="HOOKSEAL_PORTAL_LOGO",
        title="an https URL, or a path of the same host",
        description="The logo of the pages.",
    )
    portal_language: str = Field(
        default="en",
        max_length=35,
        alias="HOOKSEAL_PORTAL_LANGUAGE",
        title="a language as `de` or `pt-BR`",
        description="The language of the dates on the pages.",
    )
    portal_time_zone: str = Field(
        default="UTC",
        max_length=64,
        alias="HOOKSEAL_PORTAL_TIME_ZONE",
        title="a time zone of the IANA, as `Europe/Zurich`",
        description="The time zone of the pages.",
    )
    portal_frames: Annotated[tuple[str, ...], parse_with(api.origins)] = Field(
        default=(),
        alias=api.FRAMES,
        title="origins separated by commas, each https://HOST or https://HOST:PORT",
        description="Other sites whose pages may show the pages in a frame. `http` is refused in production.",
    )
    # --- requests and logs ---

    egress_allow: Annotated[tuple[InstanceOf[AllowedNetwork], ...], parse_with(egress.networks)] = Field(
        default=(),
        alias="HOOKSEAL_EGRESS_ALLOW",
        title="networks separated by commas, each CIDR or CIDR@tenant, for instance 10.1.0.0/16@acme",
        description="Networks that are not public but to which requests may go, for all tenants or for one.",
    )
    egress_proxy: Annotated[InstanceOf[EgressProxy] | None, parse_with(egress.proxy)] = Field(
        default=None,
        alias=egress.PROXY,
        repr=False,
        title="http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, percent-encoded",
        description="An HTTP proxy for every request, by a tunnel (CONNECT) to an address that the worker has resolved "
        "and checked. The proxy itself may have an address that is not public.",
    )
    egress_trusted: Annotated[str | None, parse_with(egress.certificates)] = Field(
        default=None,
        alias=egress.CA_FILE,
        repr=False,
        title="the path of a file with certificates in PEM form",
        description="Certificate authorities of receivers that are trusted in addition to those of the system.",
    )
    allow_http: Flag = Field(
        default=False,
        alias="HOOKSEAL_ALLOW_HTTP",
        title="true or false",
        description="Whether endpoint urls may be http. `true` is refused in production.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(in_any_case)] = Field(
        default="info",
        alias="HOOKSEAL_LOG_LEVEL",
        title="debug, info, warning or error, in any case",
        description="The lowest level of log lines that are written.",
    )
    log_format: Annotated[LogFormat, BeforeValidator(in_any_case)] = Field(
        default="auto",
        alias="HOOKSEAL_LOG_FORMAT",
        title="auto, json or console, in any case",
        description="One JSON object a line (`json`), or lines that people read (`console`). `auto` is `console` if "
        "standard error is a terminal and `HOOKSEAL_ENV` is not production, else `json`.",
    )
    tracing: Annotated[Tracing, BeforeValidator(in_any_case)] = Field(
        default="off",
        alias="HOOKSEAL_TRACING",
        title="off or otlp, in any case",
        description="Whether workers and the HTTP API send spans to a collector by OTLP over HTTP. It needs "
        "`hookseal[otel]`. The variables of OpenTelemetry (`OTEL_...`) say where to, and what is sampled: see "
        "guide/tracing.md.",
    )
    log_success: Annotated[int, parse_with(successes_per_line)] = Field(
        default="all",
        validate_default=True,
        ge=0,
        alias="HOOKSEAL_LOG_SUCCESS",
        title="all, none, or sampled:N with N from 1 to 1000000",
        description="Which attempts that delivered get a log line: all, none, or about one in N, chosen by the "
        "delivery id. Every attempt that did not deliver gets its line.",
    )

    # --- what one variable says about another ---

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

    @field_validator("drain_seconds")
    @classmethod
    def _ends_before_the_lease(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("lease_seconds", value + 1):
            raise problem("HOOKSEAL_DRAIN_SECONDS must be smaller than HOOKSEAL_LEASE_SECONDS")
        return value

    @field_validator("api_origins")
    @classmethod
    def _are_https_in_production(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        api.require_encrypted(api.ORIGINS, value, info)
        return value

    @field_validator("portal_url")
    @classmethod
    def _has_https_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        api.require_encrypted(api.PORTAL_URL, () if value is None else (value,), info)
        return value

    @field_validator("portal_frames")
    @classmethod
    def _are_of_https_in_production(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        api.require_encrypted(api.FRAMES, value, info)
        return value

    @field_validator("allow_http")
    @classmethod
    def _is_https_in_production(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        if value and info.data.get("environment") is Environment.PRODUCTION:
            raise problem("HOOKSEAL_ALLOW_HTTP may be true only outside production: remove it")
        return value


def _field(info: ValidationInfo) -> FieldInfo:
    return Variables.model_fields[info.field_name or ""]


def _alias(info: ValidationInfo) -> str:
    return _field(info).alias or ""


NAMES: Final = {field.alias or name: field for name, field in Variables.model_fields.items()}
