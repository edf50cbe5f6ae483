"""A child process gets all settings, and its environment contains none of them."""

from pathlib import Path

import pytest

from hookseal.config.load import load, split_environment
from tests.config.test_load import KEY, PASSWORD, environment


@pytest.mark.req("SEC-01", part="db")
def test_no_setting_stays_in_the_environment() -> None:
    """The environment has no variable of hookseal left, except the log level."""
    given = split_environment(
        environment(HOOKSEAL_LOG_LEVEL="debug", HOOKSEAL_QUEUE="q", LANG="C", HOOKSEAL_DATABASE_URL=None)
    )

    assert {"PATH": "/usr/bin", "LANG": "C", "HOOKSEAL_LOG_LEVEL": "debug"} == given.environment
    assert (KEY, "q") == (given.variables["SECRETS_MASTER_KEY"], given.variables["HOOKSEAL_QUEUE"])
    assert KEY not in repr(given)
    assert PASSWORD not in repr(given)


def test_a_child_loads_the_same_settings(tmp_path: Path) -> None:
    """A value from a file is passed as the value, under the name that was used; overridden variables are left out."""
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    key.chmod(0o400)
    url = f"postgresql://user:{PASSWORD}@db.internal/ours"
    environ = environment(
        SECRETS_MASTER_KEY=None, SECRETS_MASTER_KEY_FILE=str(key), HOOKSEAL_DATABASE_URL=url, HOOKSEAL_CONCURRENCY="7"
    )
    given = split_environment(environ)
    key.unlink()
    settings = load(dict(given.variables))

    assert (url, "HOOKSEAL_DATABASE_URL") == (settings.database.url, settings.database.variable)
    assert 7 == settings.worker.concurrency
    assert settings.secrets.master_key is not None
    assert {"PATH": "/usr/bin"} == given.environment
