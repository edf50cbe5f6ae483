"""Loads the settings: returns frozen values, or reports every problem of the environment at once."""

import base64
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hookseal.config import names, openbao, providers, tracing
from hookseal.config.forms import VERBATIM, LoadRequest
from hookseal.config.keys import INSTALLATION, KEY_NAMES, KMS, MASTER_KEY, NEXT_KEY, PREVIOUS_KEYS, WRAPPED_NAMES
from hookseal.config.settings import (
    Api,
    Database,
    Egress,
    Environment,
    Health,
    Log,
    Part,
    Portal,
    Redis,
    Secrets,
    Settings,
    Worker,
    WrappedKeys,
)
from hookseal.config.source import Source, read_environment, read_file
from hookseal.config.urls import LISTEN_URL, database, redis
from hookseal.config.variables import NAMES, Variables
from hookseal.errors import ConfigError, Refused, SecretUnavailable
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.kms.wrapped import KmsSettings
from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.resolve.cache import CacheLimits
from hookseal.secrets.store.port import Access

EVERYTHING: Final = frozenset(Part)
NOTHING: Final[frozenset[Part]] = frozenset()
_LOGIN: Final = frozenset({"user", "username", "password", "sslpassword"})  # in the query of a url


def load(
    environ: MutableMapping[str, str] | None = None,
    *,
    needs: frozenset[Part] = EVERYTHING,
    files: Mapping[str, str] = MappingProxyType({}),
    draws_key: bool = False,
) -> Settings:
    """Return the settings of this process, and remove the key material from the environment.

    A part that is not needed may be absent; if it is present, it is checked. A command that draws the master key needs
    settings without one. `files` has the paths of credentials whose values are in `environ`, by the names of the
    variables with `_FILE`. Raises `ConfigError` with all problems, which name variables and contain no value.
    """
    environ = os.environ if environ is None else environ
    source = read_environment(environ, required=_required(environ, needs))
    uses_openbao = openbao.is_used(environ)
    for name in (*KEY_NAMES, *(openbao.CREDENTIALS if uses_openbao else ())):
        environ.pop(name, None)
    request = LoadRequest(needs=needs, present=source.present, exposed=source.exposed, draws_key=draws_key)
    variables, problems = _parsed(source, request)
    problems = [*source.problems, *problems]
    if variables is not None and variables.tracing == tracing.OTLP:
        problems += tracing.problems(environ, variables.environment)
    if variables is None or problems:
        raise ConfigError(problems)
    files = {**files, **source.files}
    server, problems = _openbao(variables, files) if uses_openbao else (None, [])
    access, missing = _access(variables, server)
    if problems or (missing and Part.SECRETS in needs):
        raise ConfigError([*problems, *missing])
    return _settings(variables, source, needs, files=files, server=server, access=access)


def _required(environ: Mapping[str, str], needs: frozenset[Part]) -> frozenset[str]:
    has_key = Part.SECRETS in needs and environ.get(Part.SECRETS) == Provider.DB
    return frozenset(map(str, needs)) | ({MASTER_KEY} if has_key else frozenset())


def _parsed(source: Source, request: LoadRequest) -> tuple[Variables | None, list[str]]:
    # The error of pydantic contains values, so it must not even be the context of the error that `load` raises.
    try:
        return Variables.model_validate(dict(source.values), context=request), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    return None, [text for detail in details for text in _texts(detail, source.written_as)]


def _texts(detail: ErrorDetails, written_as: Mapping[str, str]) -> list[str]:
    name = str(detail["loc"][0])
    if detail["type"] != VERBATIM:
        return [f"{written_as.get(name, name)} must be {NAMES[name].title}"]
    if name in written_as:
        return [text.replace(name, written_as[name]) for text in detail["msg"].splitlines()]
    return detail["msg"].splitlines()


def _endpoint_peak(variables: Variables) -> int:
    """Return what the limit of an endpoint may grow to. Who sets the limit, and not the peak, wants that limit."""
    named = variables.model_fields_set
    if "endpoint_concurrency" in named and "endpoint_concurrency_peak" not in named:
        return variables.endpoint_concurrency
    return variables.endpoint_concurrency_peak


def _database(configured: Database | None, name: str, source: Source, files: Mapping[str, str]) -> Database | None:
    if configured is None:
        return None
    variable = source.written_as.get(name, name)
    path = files.get(f"{variable}_FILE")
    return replace(
        configured, variable=variable, read_again=None if path is None else _UrlFile(path, configured.url, database)
    )


def _redis(variables: Variables, source: Source, files: Mapping[str, str]) -> Redis | None:
    configured, name = variables.redis, str(Part.REDIS)
    if configured is None:
        return None
    variable = source.written_as.get(name, name)
    path = files.get(f"{variable}_FILE")
    return replace(
        configured, variable=variable, read_again=None if path is None else _UrlFile(path, configured.url, redis)
    )


class _UrlFile:
    """Reads a url from its file for each new connection: an agent may write another user and password into it.

    It keeps the last url while the file cannot be read, is malformed, or names another server or database: for these
    the process must start again, since its other connections would stay where they are.
    """

    def __init__(self, path: str, url: str, parse: Callable[[str], Database | Redis]) -> None:
        self._path = path
        self._url = url
        self._parse = parse

    def __call__(self) -> str:
        with suppress(OSError, ValueError):
            url = self._parse(read_file(self._path, again=True).text).url
            if _without_login(url) == _without_login(self._url):
                self._url = url
        return self._url


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    others = [(name, value) for name, value in parse_qsl(parts.query) if name not in _LOGIN]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(others)).geturl()


def _secrets(variables: Variables, access: Access) -> Secrets | None:
    if variables.provider is None:
        return None
    return Secrets(
        provider=variables.provider,
        master_key=variables.master_key,
        next_key=variables.next_key,
        previous_keys=variables.previous_keys,
        cache=CacheLimits(
            ttl_seconds=variables.cache_ttl_seconds,
            max_entries=variables.cache_max_entries,
            max_bytes=variables.cache_max_bytes,
        ),
        rotation_overlap_seconds=variables.rotation_overlap_seconds,
        retired_retention_days=variables.retired_retention_days,
        access=access,
        wrapped=WrappedKeys(
            current=variables.wrapped_key, next=variables.next_wrapped_key, previous=variables.previous_wrapped_keys
        ),
    )


def _openbao(variables: Variables, files: Mapping[str, str]) -> tuple[OpenBaoServer | None, list[str]]:
    return openbao.server(
        address=variables.bao_address,
        token=variables.bao_token,
        role=(variables.bao_role_id, variables.bao_secret_id),
        namespace=variables.bao_namespace,
        authorities=variables.bao_authorities,
        read_again=_read_again(files, variables.environment),
    )


def _read_again(files: Mapping[str, str], environment: Environment) -> Callable[[], SecretMaterial] | None:
    """Return what reads the file of the credential of OpenBao again; None if it came from no file."""
    for name, path in files.items():
        if names.FROM_FILE[name] in openbao.CREDENTIALS:
            return partial(_credential, name, path, environment)
    return None


def _credential(name: str, path: str, environment: Environment) -> SecretMaterial:
    """Read a credential again, under the rules of the first time. Raises `SecretUnavailable`."""
    try:
        file = read_file(path, again=True)
        value = openbao.token(file.text) if file.text else None
    except (OSError, ValueError) as error:
        what = f"cannot be read ({type(error).__name__})"
    else:
        if value is not None and not (file.exposed and environment is Environment.PRODUCTION):
            return value
        what = "is empty" if value is None else "other users may read: remove that right (chmod 0400)"
    raise SecretUnavailable(
        f"{name} names a file that {what}; a credential of OpenBao is read from it again, and so it will be with the "
        "next request"
    )


def _access(variables: Variables, server: OpenBaoServer | None) -> tuple[Access, list[str]]:
    return providers.access(
        variables.provider,
        variables.also_read,
        aws=(variables.aws_region, variables.aws_role),
        project=variables.google_project,
        openbao_at=(server, variables.bao_mount),
        prefix=variables.name_prefix,
        may_be_plain=variables.environment is not Environment.PRODUCTION,
    )


def _kms(variables: Variables, server: OpenBaoServer | None) -> KmsSettings | None:
    if variables.kms is None or variables.kms_installation is None:
        return None
    return KmsSettings(
        key=variables.kms,
        installation=variables.kms_installation,
        openbao=server,
        may_be_plain=variables.environment is not Environment.PRODUCTION,
    )


def _settings(
    variables: Variables,
    source: Source,
    needs: frozenset[Part],
    *,
    files: Mapping[str, str],
    server: OpenBaoServer | None,
    access: Access,
) -> Settings:
    main = _database(variables.database, str(Part.DATABASE), source, files)
    is_production = variables.environment is Environment.PRODUCTION
    return Settings(
        environment=variables.environment,
        worker=Worker(
            concurrency=variables.concurrency,
            endpoint_concurrency=variables.endpoint_concurrency,
            endpoint_concurrency_peak=_endpoint_peak(variables),
            processes=variables.processes,
            sweep_seconds=variables.sweep_seconds,
            lease_seconds=variables.lease_seconds,
            drain_seconds=variables.drain_seconds,
            queue=variables.queue,
            listen=variables.listen,
            held_days=variables.held_days,
            disable_after_seconds=variables.disable_after_seconds,
            retention_days=variables.retention_days,
            metrics_tenants=variables.metrics_tenants,
        ),
        egress=Egress(
            allow=variables.egress_allow,
            allow_http=variables.allow_http,
            proxy=variables.egress_proxy,
            trusted=variables.egress_trusted,
        ),
        health=Health(host=variables.health_host, port=variables.health_port),
        api=Api(
            host=variables.api_host,
            port=variables.api_port,
            scheme=variables.api_scheme,
            origins=variables.api_origins,
            rate=variables.api_rate,
            portal_url=variables.portal_url,
        ),
        portal=Portal(
            name=variables.portal_name,
            accent=variables.portal_accent,
            logo=variables.portal_logo,
            language=variables.portal_language,
            time_zone=variables.portal_time_zone,
            frames=variables.portal_frames,
        ),
        log=Log(
            level=variables.log_level,
            style="json" if is_production and variables.log_format == "auto" else variables.log_format,
            successes_per_line=variables.log_success,
        ),
        loaded_database=main if Part.DATABASE in needs else None,
        loaded_redis=_redis(variables, source, files) if Part.REDIS in needs else None,
        loaded_secrets=_secrets(variables, access) if Part.SECRETS in needs else None,
        listen_database=_database(variables.listen_database, LISTEN_URL, source, files),
        kms=_kms(variables, server),
        openbao=server,
        traces=variables.tracing == tracing.OTLP,
        unknown=source.unknown,
    )


_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_OBJECTS_UNTIL_COLLECTION: Final = 5_000  # to search so many new ones takes 1 to 2 ms


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as the system permits, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports a limit that it then refuses to set
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def freeze_objects() -> None:
    """Exclude the objects of the start of this process from garbage collection, and collect less often.

    A delivery makes few cycles: by default the search for them took over 4 % of the CPU of a busy worker.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION)


def harden_process() -> None:
    """Stop this process from writing core files and, on Linux, stop other users than root from reading its memory.

    Linux then gives the files in `/proc/<pid>` to root: a process of the same user can neither attach to this one nor
    read its initial environment. A program that this process executes later starts without the protection. Raises
    `Refused` if the system does not permit it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Refused("the system does not let this process protect its memory (prctl PR_SET_DUMPABLE)")


WRAPPED: Final = frozenset(WRAPPED_NAMES)
_READ_AGAIN: Final = frozenset({*openbao.CREDENTIALS, *names.PREFERRED, *names.PREFERRED.values(), LISTEN_URL})
# The child needs the log level before it receives its settings; it contains no secret.
_INHERITED: Final = "HOOKSEAL_LOG_LEVEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEnvironment:
    """The variables of hookseal with their values, and the environment without them.

    `files` has the paths of those that came from a file which may be read again.
    """

    variables: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)

    def with_unwrapped(self, secrets: Secrets) -> "SplitEnvironment":
        """Return the environment with the keys of these settings in place of wrapped ones: a child asks no KMS.

        So a process that is started again later needs no KMS that answers.
        """
        if not WRAPPED.intersection(self.variables):
            return self
        keys = {
            MASTER_KEY: (secrets.master_key,),
            NEXT_KEY: (secrets.next_key,),
            PREVIOUS_KEYS: secrets.previous_keys,
        }
        plain = {name: ",".join(_key_text(key) for key in several if key) for name, several in keys.items()}
        others = {name: value for name, value in self.variables.items() if name not in WRAPPED | {KMS, INSTALLATION}}
        return replace(self, variables=others | {name: text for name, text in plain.items() if text})


def _key_text(key: MasterKey) -> str:
    return base64.b64encode(key.material.reveal()).decode("ascii")


def split_environment(environ: Mapping[str, str] | None = None) -> SplitEnvironment:
    """Split the environment so that `load` in a child process returns the same settings from `variables`.

    Files are read here; `files` has the paths of credentials that are read again while a process runs. `environment`
    has no variable of hookseal except the log level: no password and no key. Errors in the variables are left to
    `load`, which must have accepted them. Call this before `load`, which removes the keys from the environment.
    """
    environ = os.environ if environ is None else environ
    source, ours = read_environment(environ), names.ours(environ)
    return SplitEnvironment(
        variables={source.written_as.get(name, name): value for name, value in source.values.items()},
        files={name: path for name, path in source.files.items() if names.FROM_FILE[name] in _READ_AGAIN},
        environment={name: value for name, value in environ.items() if name == _INHERITED or name not in ours},
    )
