"""The settings of the stores outside PostgreSQL: complete, or problems; and nothing of other programs is touched."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hookseal.config.load import load, split_environment
from hookseal.config.settings import Part
from hookseal.errors import SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.openbao.server import AppRole
from hookseal.secrets.store.port import NO_ACCESS, Access, AwsAccess, GcpAccess
from tests.config.test_load import KEY, environment, problems

pytestmark = pytest.mark.req("SEC-01", part="settings")
TOKEN = "s.correct-horse-of-the-bao"
OUTSIDE: dict[str, str | None] = {"SECRETS_MASTER_KEY": None}
AWS = OUTSIDE | {"SECRETS_PROVIDER": "aws", "AWS_REGION": "eu-central-1"}
GCP = OUTSIDE | {"SECRETS_PROVIDER": "gcp", "GOOGLE_CLOUD_PROJECT": "acme-prod"}
BAO = OUTSIDE | {"SECRETS_PROVIDER": "openbao", "BAO_ADDR": "https://bao.internal:8200", "BAO_TOKEN": TOKEN}
GCP_ONLY: dict[str, str | None] = {"GOOGLE_CLOUD_PROJECT": "acme-prod"}
BAO_ONLY: dict[str, str | None] = {"BAO_ADDR": "https://bao.internal:8200", "BAO_TOKEN": TOKEN}
ARN = "arn:aws:iam::123456789012:role/hookseal"


def _access(**changes: str | None) -> Access:
    return load(environment(**changes)).secrets.access


def test_the_region_of_aws_is_read() -> None:
    """The region comes from AWS_REGION, else from AWS_DEFAULT_REGION; the role is optional."""
    assert AwsAccess(region="eu-central-1") == _access(**AWS).aws
    role = {"AWS_SECRET_MANAGER_ROLE_ARN": ARN, "AWS_DEFAULT_REGION": "us-east-1"}
    assert AwsAccess(region="eu-central-1", role_arn=ARN) == _access(**AWS, **role).aws
    assert AwsAccess(region="us-east-1", role_arn=ARN) == _access(**AWS | {"AWS_REGION": None}, **role).aws


def test_gcp_needs_a_project() -> None:
    assert GcpAccess(project="acme-prod") == _access(**GCP).gcp


def test_openbao_or_vault_variables_are_read() -> None:
    """The server and its mount come from the variables of OpenBao, else of Vault; nothing shows the token."""
    found = _access(**BAO, BAO_MOUNT="kv/hooks").openbao
    assert found is not None
    assert ("kv/hooks", "https://bao.internal:8200") == (found.mount, found.server.address)
    assert TOKEN not in repr(found)
    vault = {"BAO_ADDR": None, "BAO_TOKEN": None, "VAULT_ADDR": "https://vault:8200", "VAULT_TOKEN": TOKEN}
    role = {"BAO_TOKEN": None, "BAO_ROLE_ID": "role", "BAO_SECRET_ID": TOKEN}
    by_vault, by_role = _access(**BAO | vault).openbao, _access(**BAO | role).openbao
    assert by_vault is not None
    assert by_role is not None
    assert ("secret", "https://vault:8200") == (by_vault.mount, by_vault.server.address)
    assert isinstance(by_role.server.credentials, AppRole)


def test_a_token_leaves_the_environment() -> None:
    """After the load the environment has neither token nor secret id, and a child gets them by the pipe only."""
    environ = environment(**BAO)
    split = split_environment(environ)
    assert (TOKEN, False) == (split.variables["BAO_TOKEN"], TOKEN in split.environment.values())
    load(environ)
    assert TOKEN not in environ.values()


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize(
    ("name", "more"),
    [("BAO_TOKEN_FILE", {}), ("VAULT_TOKEN_FILE", {}), ("BAO_SECRET_ID_FILE", {"BAO_ROLE_ID": "role"})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_file_of_a_credential_is_read_again(name: str, more: dict[str, str], tmp_path: Path) -> None:
    """A process, and a child of it, read the file again, under the rules of the first time; an error names it."""
    file = tmp_path / "credential"
    file.write_text(TOKEN + "\n")
    file.chmod(0o400)
    environ = environment(**BAO | {"BAO_TOKEN": None, "HOOKSEAL_ENV": "production", name: str(file)} | more)
    split = split_environment(environ)
    for settings in (load(environ), load(dict(split.variables), files=split.files)):
        assert settings.openbao is not None
        read_again = settings.openbao.read_again
        assert read_again is not None
        _replaced(file, "s.of-today")
        assert SecretMaterial(b"s.of-today") == read_again()
        faults: tuple[tuple[Callable[[], None], str], ...] = (
            (file.unlink, "cannot be read .FileNotFoundError"),
            (lambda: _replaced(file, ""), "is empty"),
            (lambda: _replaced(file, "two words"), "cannot be read .ValueError"),
            (lambda: _replaced(file, "x" * 16_385), "cannot be read .ValueError"),
            (lambda: _replaced(file, "s.shown", 0o444), "other users may read: remove that right .chmod 0400"),
            (lambda: _piped(file), "cannot be read .ValueError"),
        )
        for prepare, why in faults:
            prepare()
            with pytest.raises(SecretUnavailable, match=f"^{name} names a file that .*{why}") as raised:
                read_again()
            assert "s.shown" not in str(raised.value)
        _replaced(file, "s.of-tomorrow")
        assert SecretMaterial(b"s.of-tomorrow") == read_again()
        _replaced(file, TOKEN)


def _piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o400)


def _replaced(file: Path, text: str, mode: int = 0o400) -> None:
    file.unlink(missing_ok=True)
    file.write_text(text)
    file.chmod(mode)


def test_what_can_be_read_only_once_is_not_read_again(tmp_path: Path) -> None:
    """A pipe of the shell, and a descriptor of this process, are read at start and never again."""
    read, write = os.pipe()
    os.write(write, TOKEN.encode())
    os.close(write)
    file = tmp_path / "credential"
    _replaced(file, TOKEN)
    with file.open("rb") as opened:
        for descriptor in (read, opened.fileno()):
            named = {"BAO_TOKEN": None, "BAO_TOKEN_FILE": f"/dev/fd/{descriptor}"}
            server = load(environment(**BAO | named)).openbao
            assert server is not None
            assert (SecretMaterial(TOKEN.encode()), None) == (server.credentials, server.read_again)
    os.close(read)


def test_several_providers_are_read_during_a_move() -> None:
    found = _access(**AWS | {"SECRETS_ALSO_READ": "gcp , openbao", "SECRETS_MASTER_KEY": KEY}, **GCP_ONLY, **BAO_ONLY)
    assert frozenset({Provider.AWS, Provider.GCP, Provider.OPENBAO}) == found.providers
    back = load(environment(SECRETS_ALSO_READ="aws", AWS_REGION="eu-central-1")).secrets
    assert (frozenset({Provider.AWS}), Provider.DB) == (back.access.providers, back.provider)


def test_an_unused_providers_variables_are_not_read() -> None:
    foreign: dict[str, str | None] = {
        "AWS_REGION": "",
        "AWS_DEFAULT_REGION": "NOT A REGION",
        "GOOGLE_CLOUD_PROJECT": "",
        "BAO_ADDR": "nonsense",
        "VAULT_TOKEN": "x y",
    }
    environ = environment(**foreign)
    assert NO_ACCESS == load(environ).secrets.access
    assert foreign.items() <= environ.items()
    assert foreign.items() <= split_environment(environ).environment.items()


def test_a_prefix_separates_installations() -> None:
    assert ("hookseal", "staging") == (_access(**AWS).prefix, _access(**AWS, SECRETS_NAME_PREFIX="staging").prefix)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (AWS | {"AWS_REGION": None}, "AWS_REGION is not set: the provider aws needs it"),
        (AWS | {"AWS_REGION": ""}, "AWS_REGION is empty"),
        (AWS | {"AWS_REGION": "Europe"}, "AWS_REGION must be the name of a region"),
        (AWS | {"AWS_SECRET_MANAGER_ROLE_ARN": "hookseal"}, "AWS_SECRET_MANAGER_ROLE_ARN must be arn:aws:iam"),
        (GCP | {"GOOGLE_CLOUD_PROJECT": None}, "GOOGLE_CLOUD_PROJECT is not set: the provider gcp needs it"),
        (BAO | {"BAO_ADDR": None}, "BAO_ADDR is not set"),
        (BAO | {"BAO_TOKEN": None}, "OpenBao needs BAO_TOKEN, or both BAO_ROLE_ID and BAO_SECRET_ID"),
        (BAO | {"BAO_MOUNT": "/"}, "BAO_MOUNT must be"),
        ({"SECRETS_ALSO_READ": "db"}, "SECRETS_ALSO_READ must be providers outside PostgreSQL"),
        ({"SECRETS_ALSO_READ": "aws,"}, "SECRETS_ALSO_READ must be providers outside PostgreSQL"),
        ({"SECRETS_ALSO_READ": "aws"}, "AWS_REGION is not set: the provider aws needs it"),
        (AWS | {"SECRETS_NAME_PREFIX": "Hook_Seal"}, "SECRETS_NAME_PREFIX must be 1 to 32 characters"),
    ],
)
def test_each_problem_names_its_variable(changes: dict[str, str | None], problem: str) -> None:
    [found] = problems(environment(**changes))
    assert found.startswith(problem)


def test_a_command_without_secrets_needs_no_provider() -> None:
    assert [] == problems(environment(**AWS | {"AWS_REGION": None}), needs=frozenset({Part.DATABASE}))
