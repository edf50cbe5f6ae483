"""The variables of the stores outside PostgreSQL: the second part of the table in `variables`."""

from typing import Annotated

from pydantic import Field, InstanceOf

from hookseal.config import providers
from hookseal.config.forms import parse_with
from hookseal.config.secret_variables import SecretVariables
from hookseal.secrets.store.access import DEFAULT_PREFIX


class StoreVariables(SecretVariables):
    """How to reach the providers outside PostgreSQL."""

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
        "Credentials are found as by every client of AWS.",
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
        description="The project of Google Secret Manager, for `gcp`. Credentials are found as by every client of "
        "Google, for instance by `GOOGLE_APPLICATION_CREDENTIALS`.",
    )
    bao_mount: str = Field(
        default="secret",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_./-]{0,127}\z",
        alias=providers.MOUNT,
        title="1 to 128 characters of A-Z, a-z, 0-9, '_', '.', '/' and '-'",
        description="Where the engine KV, version 2, is mounted, for `openbao`.",
    )
