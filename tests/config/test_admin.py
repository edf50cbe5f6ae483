"""What an Admin reads from the environment of its own process."""

from pathlib import Path

import pytest

from hookseal.config.load import load
from hookseal.config.producer import admin_settings
from hookseal.config.settings import Part
from hookseal.errors import ConfigError
from hookseal.secrets.core.ref import Provider
from tests.config.test_kms import MASTER, wrapped

DATABASE = "postgresql://user:correct-horse@db.internal/hookseal"
KEY = "7yyrkuc1ed1FZi0YxFzajm8mpnMX8VMElPYFusAJKMQ="
pytestmark = pytest.mark.req("DEL-18")


def test_a_master_key_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "key").chmod(0o400)
    environ = {
        "DATABASE_URL": "postgresql://localhost/app",
        "HOOKSEAL_DATABASE_URL": DATABASE,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY_FILE": str(tmp_path / "key"),
        "SECRETS_ROTATION_OVERLAP_SECONDS": "60",
    }
    before = dict(environ)
    settings = admin_settings(environ=environ)

    assert before == environ
    assert (DATABASE, 60) == (settings.database.url, settings.secrets.rotation_overlap_seconds)
    assert settings.secrets.keyring is not None
    assert KEY not in repr(settings)


def test_a_given_url_replaces_the_environments() -> None:
    environ = {"HOOKSEAL_DATABASE_URL": "/nowhere"}
    assert DATABASE == admin_settings(database_url=DATABASE, environ=environ).database.url


@pytest.mark.parametrize("provider", [{}, {"SECRETS_PROVIDER": "db"}, {"SECRETS_PROVIDER": ""}])
def test_a_master_key_is_optional(provider: dict[str, str]) -> None:
    assert None is admin_settings(environ=provider | {"DATABASE_URL": DATABASE}).loaded_secrets


@pytest.mark.req("SEC-25")
def test_a_wrapped_key_and_its_kms_are_read() -> None:
    openbao = {"BAO_ADDR": "https://bao.internal:8200", "BAO_TOKEN": "s.correct-horse"}
    assert None is admin_settings(environ=openbao | {"DATABASE_URL": DATABASE}).openbao
    environ = {
        "DATABASE_URL": DATABASE,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY_WRAPPED": wrapped(MASTER),
        "SECRETS_KMS": "openbao:transit/hookseal",
        "SECRETS_KMS_INSTALLATION": "site-1",
    }
    settings = admin_settings(environ=environ | openbao)

    assert [MASTER.key_id] == [key.key_id for key in settings.secrets.wrapped.all]
    assert settings.openbao is not None
    assert "correct-horse" not in repr(settings)


BAO = {"BAO_ADDR": "https://bao.internal:8200", "BAO_TOKEN": "s.correct-horse", "BAO_MOUNT": "team"}
EVERYWHERE = {
    "AWS_REGION": "eu-central-1",
    "AWS_SECRET_MANAGER_ROLE_ARN": "arn:aws:iam::123456789012:role/hookseal",
    "GOOGLE_CLOUD_PROJECT": "acme",
    **BAO,
}


@pytest.mark.req("SEC-16", "SEC-17")
@pytest.mark.parametrize("also", [False, True])
@pytest.mark.parametrize("provider", ["aws", "gcp", "openbao"])
def test_a_provider_is_reached_as_by_a_worker(provider: str, also: bool) -> None:
    """An Admin reaches a provider of new secrets, or one that is also read, with the variables of every process."""
    names = {"SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": KEY, "SECRETS_ALSO_READ": provider}
    environ = {"DATABASE_URL": DATABASE, "SECRETS_NAME_PREFIX": "team", **EVERYWHERE}
    environ |= names if also else {"SECRETS_PROVIDER": provider}
    access = admin_settings(environ=environ).secrets.access

    assert load(dict(environ), needs=frozenset({Part.DATABASE, Part.SECRETS})).secrets.access == access
    assert (frozenset({Provider(provider)}), "team") == (access.providers, access.prefix)


def test_the_variables_of_another_program_are_left_alone() -> None:
    """Variables of AWS, Google and OpenBao that the settings do not need may have any value."""
    others = dict.fromkeys((*EVERYWHERE, "AWS_DEFAULT_REGION"), "-")
    environ = {"DATABASE_URL": DATABASE, "SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": KEY}
    assert frozenset() == admin_settings(environ=environ | others).secrets.access.providers


def test_a_master_key_needs_a_provider() -> None:
    """A master key without a provider is a problem, which names the variable and no value."""
    with pytest.raises(ConfigError, match="SECRETS_PROVIDER is not set") as caught:
        admin_settings(environ={"DATABASE_URL": DATABASE, "SECRETS_MASTER_KEY": KEY})

    assert KEY not in str(caught.value)


def test_other_programs_variables_are_not_checked() -> None:
    others = {
        "SECRETS_BACKEND": "vault",
        "REDIS_URL": "not a url",
        "HOOKSEAL_DEPLOYMENT": "blue",
        "HOOKSEAL_SWEEP_SECONDS": "soon",
        "HOOKSEAL_RETENTION_DAYS": "30",
        "BAO_MOUNT": "x",
    }
    assert DATABASE == admin_settings(environ=others | {"DATABASE_URL": DATABASE}).database.url


@pytest.mark.parametrize("name", ["SECRETS_MASTER_KEYS", "HOOKSEAL_EGRES_ALLOW", "SECRETS_PROVIDR"])
def test_a_similar_name_is_a_typing_error(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is not a setting of hookseal, did you mean"):
        admin_settings(environ={"DATABASE_URL": DATABASE, name: "x"})
