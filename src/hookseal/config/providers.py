"""The variables of the stores outside PostgreSQL. Names that other programs use are read only if they are needed."""

import re
from collections.abc import Mapping
from typing import Final

from hookseal.config import openbao
from hookseal.config.forms import problem
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.openbao.server import OpenBaoServer
from hookseal.secrets.store.port import Access, AwsAccess, GcpAccess, OpenBaoAccess

PROVIDER: Final = "SECRETS_PROVIDER"
ALSO_READ: Final = "SECRETS_ALSO_READ"
REGION: Final = "AWS_REGION"
PREFIX: Final = "SECRETS_NAME_PREFIX"
ROLE: Final = "AWS_SECRET_MANAGER_ROLE_ARN"
PROJECT: Final = "GOOGLE_CLOUD_PROJECT"
MOUNT: Final = openbao.MOUNT
OUTSIDE: Final = (Provider.AWS, Provider.GCP, Provider.OPENBAO)
# The variables of a provider that are ours only if it is used, and the names that count in place of others.
OF_PROVIDER: Final = {
    Provider.AWS: frozenset({REGION, ROLE, "AWS_DEFAULT_REGION"}),
    Provider.GCP: frozenset({PROJECT}),
}
FALLBACKS: Final = {"AWS_DEFAULT_REGION": REGION}
OURS: Final = frozenset().union(*OF_PROVIDER.values())

_SEPARATOR: Final = re.compile(r"\s*,\s*")


def used(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the providers that the settings name, for new secrets or to read."""
    return frozenset({environ.get(PROVIDER, ""), *_SEPARATOR.split(environ.get(ALSO_READ, "").strip())})


def names_in(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names of present variables that belong to a provider which is used."""
    groups = [names for provider, names in OF_PROVIDER.items() if provider in used(environ)]
    return frozenset().union(*groups) & environ.keys()


def also_read(text: str) -> frozenset[Provider]:
    """Return the providers of a list with commas. Raises a problem."""
    names = _SEPARATOR.split(text.strip())
    if not set(names) <= set(OUTSIDE):
        raise problem(f"{ALSO_READ} must be providers outside PostgreSQL, separated by commas: {_listed()}")
    return frozenset(map(Provider, names))


def access(
    provider: Provider | None,
    also: frozenset[Provider],
    *,
    aws: tuple[str | None, str | None],
    project: str | None,
    openbao_at: tuple[OpenBaoServer | None, str],
    prefix: str,
    may_be_plain: bool,
) -> tuple[Access, list[str]]:
    """Return how to reach the providers that are used, and the problems of what is missing."""
    to_reach, (region, role), (server, mount) = also | {provider}, aws, openbao_at
    needed = ((Provider.AWS, REGION, region), (Provider.GCP, PROJECT, project))
    problems = [
        f"{name} is not set: the provider {which} needs it"
        for which, name, value in needed
        if which in to_reach and value is None
    ]
    reached = Access(
        aws=AwsAccess(region=region, role_arn=role, may_be_plain=may_be_plain)
        if Provider.AWS in to_reach and region
        else None,
        gcp=GcpAccess(project=project, may_be_plain=may_be_plain) if Provider.GCP in to_reach and project else None,
        openbao=OpenBaoAccess(server=server, mount=mount) if Provider.OPENBAO in to_reach and server else None,
        prefix=prefix,
    )
    return reached, problems


def _listed() -> str:
    return ", ".join(OUTSIDE)
