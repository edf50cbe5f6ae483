"""Loads the settings: returns frozen values, or reports every problem of the environment at once."""

import os
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hookseal.config import names, openbao, providers
from hookseal.config.keys import KEY_NAMES, MASTER_KEY
from hookseal.config.problems import VERBATIM, LoadRequest
from hookseal.config.settings import (
    Database,
    Egress,
    Environment,
    Health,
    Log,
    Part,
    Redis,
    Secrets,
    Settings,
    Worker,
    WrappedKeys,
)
from hookseal.config.source import Source, read_environment, read_file
from hookseal.config.urls import LISTEN_URL, database, redis
from hookseal.config.variables import NAMES, Variables
from hookseal.ground.errors import ConfigError
from hookseal.secrets.errors import SecretUnavailable
from hookseal.secrets.kms.wrapped import KmsSettings
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.ref import Provider
from hookseal.secrets.resolve.cache import CacheLimits
from hookseal.secrets.store.access import Access

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


def _database(found: Database | None, name: str, source: Source, files: Mapping[str, str]) -> Database | None:
    if found is None:
        return None
    variable = source.written_as.get(name, name)
    path = files.get(f"{variable}_FILE")
    return replace(found, variable=variable, read_again=None if path is None else _UrlFile(path, found.url, database))


def _redis(variables: Variables, source: Source, files: Mapping[str, str]) -> Redis | None:
    found, name = variables.redis, str(Part.REDIS)
    if found is None:
        return None
    variable = source.written_as.get(name, name)
    path = files.get(f"{variable}_FILE")
    return replace(found, variable=variable, read_again=None if path is None else _UrlFile(path, found.url, redis))


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
    return Settings(
        environment=variables.environment,
        worker=Worker(
            concurrency=variables.concurrency,
            endpoint_concurrency=variables.endpoint_concurrency,
            processes=variables.processes,
            sweep_seconds=variables.sweep_seconds,
            lease_seconds=variables.lease_seconds,
            drain_seconds=variables.drain_seconds,
            queue=variables.queue,
            listen=variables.listen,
            held_days=variables.held_days,
            disable_after_seconds=variables.disable_after_seconds,
            retention_days=variables.retention_days,
        ),
        egress=Egress(
            allow=variables.egress_allow,
            allow_http=variables.allow_http,
            proxy=variables.egress_proxy,
            trusted=variables.egress_trusted,
        ),
        health=Health(host=variables.health_host, port=variables.health_port),
        log=Log(level=variables.log_level, style=variables.log_format),
        loaded_database=main if Part.DATABASE in needs else None,
        loaded_redis=_redis(variables, source, files) if Part.REDIS in needs else None,
        loaded_secrets=_secrets(variables, access) if Part.SECRETS in needs else None,
        listen_database=_database(variables.listen_database, LISTEN_URL, source, files),
        kms=_kms(variables, server),
        openbao=server,
    )
