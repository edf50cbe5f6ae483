"""The settings of a KMS: wrapped master keys, and the variables of OpenBao."""

from pathlib import Path

import pytest

from hookseal.config.load import NOTHING, load, split_environment
from hookseal.config.settings import Part
from hookseal.errors import ConfigError, Defect
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.kms.wrapped import WrappedKey
from hookseal.secrets.openbao.server import AppRole
from tests.config.test_load import KEY, OTHER, THIRD, environment, problems
from tests.doubles.certificates import authority

pytestmark = pytest.mark.req("SEC-25")

MASTER, NEXT, PREVIOUS = (MasterKey.parse(text, variable="a key") for text in (KEY, OTHER, THIRD))
ARN = "aws:arn:aws:kms:eu-central-1:123456789012:key/28c19c39-9cff-4abf-be49-4da6e251e19f"
TOKEN = "s.token-of-the-tests"


def wrapped(key: MasterKey) -> str:
    """Return something in the form of that key, wrapped."""
    return str(WrappedKey(key_id=key.key_id, ciphertext=b"wrapped by a KMS"))


def by_kms(**changes: str | None) -> dict[str, str]:
    """Return a complete environment with a wrapped master key, and these changes."""
    settings: dict[str, str | None] = {
        "SECRETS_MASTER_KEY": None,
        "SECRETS_MASTER_KEY_WRAPPED": wrapped(MASTER),
        "SECRETS_KMS": ARN,
        "SECRETS_KMS_INSTALLATION": "production",
    }
    return environment(**(settings | changes))


def by_openbao(**changes: str | None) -> dict[str, str]:
    settings: dict[str, str | None] = {
        "SECRETS_KMS": "openbao:transit/hookseal",
        "BAO_ADDR": "https://bao.example:8200/",
        "BAO_TOKEN": TOKEN,
    }
    return by_kms(**(settings | changes))


def test_wrapped_keys_replace_plain_ones() -> None:
    """Wrapped keys take the place of the plain ones; nothing uses them before they are unwrapped."""
    settings = load(
        by_kms(
            SECRETS_MASTER_KEY_NEXT_WRAPPED=wrapped(NEXT), SECRETS_MASTER_KEY_PREVIOUS_WRAPPED=f"{wrapped(PREVIOUS)}"
        )
    )
    assert settings.kms is not None
    assert (ARN, "production") == (str(settings.kms.key), settings.kms.installation)
    assert [MASTER.key_id, NEXT.key_id, PREVIOUS.key_id] == [key.key_id for key in settings.secrets.wrapped.all]
    with pytest.raises(Defect):
        _ = settings.secrets.keyring
    with pytest.raises(Defect):
        _ = settings.secrets.registered_keyring

    secrets = settings.secrets.with_unwrapped({key.key_id: key for key in (MASTER, NEXT, PREVIOUS)})
    assert () == secrets.wrapped.all
    assert secrets.keyring is not None
    assert (MASTER, NEXT, PREVIOUS) == secrets.keyring.keys


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"SECRETS_KMS": None, "SECRETS_KMS_INSTALLATION": None},
            "SECRETS_MASTER_KEY_WRAPPED needs SECRETS_KMS: set it",
        ),
        ({"SECRETS_KMS": "azure:x"}, "SECRETS_KMS must be aws:KEY_ARN, gcp:projects/"),
        ({"SECRETS_KMS_INSTALLATION": None}, "SECRETS_KMS_INSTALLATION is not set: give this installation a name"),
        ({"SECRETS_KMS_INSTALLATION": "a/b"}, "SECRETS_KMS_INSTALLATION must be 1 to 63 characters"),
        (
            {"SECRETS_MASTER_KEY_WRAPPED": None, "SECRETS_MASTER_KEY": KEY, "SECRETS_KMS": None},
            "SECRETS_KMS_INSTALLATION has no effect without SECRETS_KMS: remove it, or set SECRETS_KMS",
        ),
        ({"SECRETS_MASTER_KEY": KEY}, "SECRETS_MASTER_KEY and SECRETS_MASTER_KEY_WRAPPED are both set: remove one"),
        ({"SECRETS_MASTER_KEY_WRAPPED": KEY}, "SECRETS_MASTER_KEY_WRAPPED must be a wrapped master key"),
        ({"SECRETS_MASTER_KEY_WRAPPED": None}, "SECRETS_MASTER_KEY is not set: db needs 32 random bytes in base64"),
        (
            {"SECRETS_MASTER_KEY_NEXT_WRAPPED": wrapped(MASTER)},
            "SECRETS_MASTER_KEY_NEXT_WRAPPED repeats the key of SECRETS_MASTER_KEY_WRAPPED: remove it from one of them",
        ),
        (
            {"SECRETS_MASTER_KEY_PREVIOUS_WRAPPED": ",".join([wrapped(NEXT)] * 2)},
            "SECRETS_MASTER_KEY_PREVIOUS_WRAPPED repeats the key of SECRETS_MASTER_KEY_PREVIOUS_WRAPPED",
        ),
        (
            {"SECRETS_MASTER_KEY_PREVIOUS_WRAPPED": ",".join([wrapped(NEXT)] * 17)},
            "SECRETS_MASTER_KEY_PREVIOUS_WRAPPED has more than 16 keys",
        ),
        (
            {"SECRETS_PROVIDER": "dev", "HOOKSEAL_ENV": "test"},
            "SECRETS_MASTER_KEY_WRAPPED has no effect with SECRETS_PROVIDER dev",
        ),
    ],
)
def test_a_wrong_combination_is_named(changes: dict[str, str | None], expected: str) -> None:
    [found] = problems(by_kms(**changes))
    assert found.startswith(expected)


def test_the_next_key_may_be_wrapped_alone() -> None:
    assert [] == problems(
        environment(SECRETS_KMS=ARN, SECRETS_KMS_INSTALLATION="a", SECRETS_MASTER_KEY_NEXT_WRAPPED=wrapped(NEXT))
    )
    [found] = problems(
        environment(SECRETS_KMS=ARN, SECRETS_KMS_INSTALLATION="a", SECRETS_MASTER_KEY_NEXT_WRAPPED=wrapped(MASTER))
    )
    assert found.startswith("SECRETS_MASTER_KEY_NEXT_WRAPPED repeats the key of SECRETS_MASTER_KEY:")


def test_a_drawn_key_needs_settings_without_one() -> None:
    needs = frozenset({Part.DATABASE, Part.SECRETS})
    assert load(by_kms(SECRETS_MASTER_KEY_WRAPPED=None), needs=needs, draws_key=True).secrets.keyring is None
    for environ, name in ((by_kms(), "SECRETS_MASTER_KEY_WRAPPED"), (environment(), "SECRETS_MASTER_KEY")):
        with pytest.raises(ConfigError, match=f"^{name} is set, and this command makes the master key: remove it$"):
            load(environ, needs=needs, draws_key=True)


def test_a_child_gets_unwrapped_keys_only() -> None:
    """A child process gets the keys by the pipe, without the wrapped keys and the KMS: it asks no KMS."""
    environ = by_openbao(
        SECRETS_MASTER_KEY_NEXT_WRAPPED=wrapped(NEXT),
        SECRETS_MASTER_KEY_PREVIOUS=THIRD,
        BAO_TOKEN=None,
        VAULT_TOKEN=TOKEN,
    )
    given = split_environment(environ)
    secrets = load(environ).secrets.with_unwrapped({key.key_id: key for key in (MASTER, NEXT)})
    handed = given.with_unwrapped(secrets)

    assert {"PATH": "/usr/bin"} == handed.environment
    assert [] == [name for name in handed.variables if "WRAPPED" in name or "KMS" in name]
    found = load(dict(handed.variables))
    assert found.secrets.keyring is not None
    assert [MASTER.key_id, NEXT.key_id, PREVIOUS.key_id] == [key.key_id for key in found.secrets.keyring.keys]
    assert (None, None) == (found.kms, found.openbao)
    assert KEY not in repr(handed)

    plain = split_environment(environment())
    assert plain is plain.with_unwrapped(load(environment()).secrets)


def test_openbao_settings_are_read(tmp_path: Path) -> None:
    """The variables of OpenBao say where it is and who asks; credentials leave the environment."""
    pem = authority().pem
    (tmp_path / "ca.pem").write_text(pem)
    environ = by_openbao(BAO_NAMESPACE="team", BAO_CACERT=str(tmp_path / "ca.pem"))
    server = load(environ).openbao
    assert server is not None
    assert ("https://bao.example:8200", "team", pem.strip()) == (server.address, server.namespace, server.authorities)
    assert "BAO_TOKEN" not in environ
    assert TOKEN not in repr(load(by_openbao()))

    role = load(by_openbao(BAO_TOKEN=None, BAO_ROLE_ID="r", BAO_SECRET_ID=TOKEN)).openbao
    assert role is not None
    assert isinstance(role.credentials, AppRole)


def test_vaults_names_are_a_fallback(tmp_path: Path) -> None:
    """The variables of Vault count if those of OpenBao are not set; the others are not even read."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o400)
    found = load(
        by_openbao(BAO_ADDR=None, BAO_TOKEN=None, VAULT_ADDR="https://v:1", VAULT_TOKEN_FILE=str(tmp_path / "token"))
    )
    assert found.openbao is not None
    assert "https://v:1" == found.openbao.address
    assert [] == problems(by_openbao(VAULT_ADDR="", VAULT_TOKEN_FILE="/nowhere"))
    assert ["VAULT_ADDR must be https://HOST:PORT"] == problems(by_openbao(BAO_ADDR=None, VAULT_ADDR="v:1"))


def test_openbaos_variables_are_ignored_unless_named() -> None:
    for environ in (environment, by_kms):
        theirs = environ(BAO_ADDR="", VAULT_TOKEN_FILE="/nowhere", VAULT_ADDR="x", BAO_TOKEN=TOKEN)
        assert [] == problems(dict(theirs))
        assert {"BAO_TOKEN", "VAULT_ADDR"} <= set(split_environment(theirs).environment)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"BAO_ADDR": None}, "BAO_ADDR is not set: it must be https://HOST:PORT of OpenBao or Vault"),
        ({"BAO_ADDR": "https://user:x@bao"}, "BAO_ADDR must be https://HOST:PORT"),
        ({"BAO_ADDR": "http://bao:8200"}, "BAO_ADDR may be http in production only for an address of this machine"),
        ({"BAO_TOKEN": None}, "OpenBao needs BAO_TOKEN, or both BAO_ROLE_ID and BAO_SECRET_ID"),
        ({"BAO_TOKEN": None, "BAO_ROLE_ID": "r"}, "OpenBao needs BAO_TOKEN, or both BAO_ROLE_ID and BAO_SECRET_ID"),
        ({"BAO_ROLE_ID": "r", "BAO_SECRET_ID": "s"}, "BAO_TOKEN and BAO_ROLE_ID or BAO_SECRET_ID are both set"),
        ({"BAO_TOKEN": "two words"}, "BAO_TOKEN must be a token of printable ASCII characters"),
        ({"BAO_CACERT": "/nowhere"}, "BAO_CACERT names a file that cannot be read"),
    ],
)
def test_a_wrong_openbao_setting_is_named(changes: dict[str, str | None], expected: str) -> None:
    [found] = problems(by_openbao(**changes))
    assert found.startswith(expected)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8200", "http://localhost", "http://[::1]:8200", "https://bao/prefix"]
)
def test_a_plain_connection_must_be_local_in_production(address: str) -> None:
    found = load(by_openbao(BAO_ADDR=address), needs=NOTHING)
    assert found.openbao is not None
    assert address == found.openbao.address


@pytest.mark.parametrize("name", ["BAO_TOKEN", "VAULT_TOKEN"])
def test_a_token_file_must_be_private_in_production(tmp_path: Path, name: str) -> None:
    """The token that unwraps the master key is protected like it: in production no other user may read its file."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    given = {"BAO_TOKEN": None, f"{name}_FILE": str(file)}
    found = f"{name}_FILE names a file that other users may read: remove that right (chmod 0400)"

    assert [found] == problems(by_openbao(**given))
    assert [] == problems(by_openbao(**given, HOOKSEAL_ENV="development"))
    file.chmod(0o400)
    assert [] == problems(by_openbao(**given))
