"""The variables: one model that parses them, and the table from which the settings page is written.

Each field's alias is the name of the variable, its title the form of a valid value, its description the meaning.
Messages contain names and forms only, never values.
"""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo, field_validator

from hookseal.config import egress, urls
from hookseal.config.forms import Flag, Whole, in_any_case, parse_with, whole_number
from hookseal.config.problems import problem
from hookseal.config.settings import MAX_PROCESSES, Database, Environment
from hookseal.config.store_variables import StoreVariables
from hookseal.dispatcher.address import AllowedNetwork
from hookseal.dispatcher.delivery_facts import HELD_DAYS
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.ground.log import LogFormat, LogLevel


class Variables(StoreVariables):
    """The variables of this version, in the order in which problems are reported."""

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
    processes: Whole = Field(
        default=1,
        ge=1,
        le=MAX_PROCESSES,
        alias="HOOKSEAL_PROCESSES",
        title=f"a whole number from 1 to {MAX_PROCESSES}; for more processes start another `hookseal worker`",
        description="The processes of one `hookseal worker`; the option `--processes` takes precedence. Each process "
        "has its own concurrency, memory and up to 12 connections to PostgreSQL, or 13 with `HOOKSEAL_LISTEN`.",
    )
    sweep_seconds: Whole = whole_number(
        "HOOKSEAL_SWEEP_SECONDS",
        15,
        (1, 300),
        description="How late at most a worker notices that Redis has lost a ring, and rings again. It looks four "
        "times within this time.",
    )
    lease_seconds: Whole = whole_number(
        "HOOKSEAL_LEASE_SECONDS",
        45,
        (7, 3_600),
        description="How long a claim is valid. Then another worker may claim the delivery.",
    )
    drain_seconds: Whole = Field(
        default=25,
        ge=6,
        le=3_600,
        alias="HOOKSEAL_DRAIN_SECONDS",
        title="a whole number from 6 to 3600, and smaller than HOOKSEAL_LEASE_SECONDS",
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
    held_days: Whole = whole_number(
        "HOOKSEAL_HELD_DAYS",
        HELD_DAYS,
        (1, 30),
        description="How long a delivery waits for a disabled endpoint before it ends.",
    )
    disable_after_seconds: Whole = whole_number(
        "HOOKSEAL_DISABLE_AFTER_SECONDS",
        432_000,
        (3_600, 2_592_000),
        description="How long every attempt of an endpoint must fail before a worker disables it. Its deliveries then "
        "wait until `endpoint enable`.",
    )
    retention_days: Whole = whole_number(
        "HOOKSEAL_RETENTION_DAYS",
        30,
        (1, 3_650),
        description="How long a finished delivery is kept with its attempts, and an event after its publish. A worker "
        "then deletes it; an event only once it has no delivery left.",
    )
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
        pattern=r"^[A-Za-z0-9:._-]{1,253}\z",
        alias="HOOKSEAL_HEALTH_HOST",
        title="an address or a host name",
        description="The address on which the probes of a worker listen.",
    )
    health_port: Whole = whole_number(
        "HOOKSEAL_HEALTH_PORT",
        8080,
        (0, 65_535),
        description="The port of the probes; 0 picks a free one.",
    )
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
        default="json",
        alias="HOOKSEAL_LOG_FORMAT",
        title="json or console, in any case",
        description="One JSON object a line, or lines that people read.",
    )

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
