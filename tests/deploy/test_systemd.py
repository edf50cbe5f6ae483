"""The systemd unit starts the same command as the image, passes its secrets, and waits for the drain."""

from pathlib import Path

import pytest

from hookseal.config.load import load
from hookseal.errors import ConfigError, Refused
from tests.deploy.files import image, unit, unit_environment

pytestmark = pytest.mark.req("OPS-05", part="systemd")

# Sandboxing options of systemd.exec(5) that a worker works with.
FENCES = {
    "CapabilityBoundingSet": "",
    "DynamicUser": "yes",
    "LimitCORE": "0",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectHome": "yes",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
}


def test_the_unit_starts_the_images_command() -> None:
    """The command is the entry point and default command of the image, with the Python of its own environment."""
    python, *arguments = dict(unit())["ExecStart"].split()

    assert [*image().entrypoint[1:], *image().command] == arguments
    assert Path(python).is_absolute()


def test_the_unit_is_restricted() -> None:
    """The unit has a dynamic user, no capabilities, no writable path, and only the system calls of a service."""
    assert FENCES.items() <= dict(unit()).items()
    assert ["@system-service", "~@privileged"] == [value for name, value in unit() if name == "SystemCallFilter"]


def test_a_stop_waits_for_the_drain() -> None:
    """The stop time-out of the worker is ten seconds longer than its drain."""
    assert int(dict(unit())["TimeoutStopSec"]) >= int(unit_environment()["HOOKSEAL_DRAIN_SECONDS"]) + 10


def test_wrong_settings_are_not_retried() -> None:
    """The unit is always restarted, except after an exit code for wrong settings or rights."""
    settings = dict(unit())

    assert ("on-failure", "0") == (settings["Restart"], settings["StartLimitIntervalSec"])
    assert f"{Refused.exit_code} {ConfigError.exit_code}" == settings["RestartPreventExitStatus"]


def test_the_settings_of_the_unit_load_in_production(tmp_path: Path) -> None:
    """Every named file is a credential, and with real values the settings load in production."""
    credentials = {value.split(":")[0] for name, value in unit() if name == "LoadCredential"}
    named = {value.removeprefix("%d/") for name, value in unit_environment().items() if name.endswith("_FILE")}
    assert credentials == named

    values = ("postgresql://u:p@127.0.0.1/app", "redis://127.0.0.1", "7yyrkuc1ed1FZi0YxFzajm8mpnMX8VMElPYFusAJKMQ=")
    for name, value in zip(("database_url", "redis_url", "master_key"), values, strict=True):
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o400)
    loaded = load({name: value.replace("%d", str(tmp_path)) for name, value in unit_environment().items()})
    assert "127.0.0.1:5432" == loaded.database.address
