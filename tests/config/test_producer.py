"""What a producer takes from the environment of its own process."""

from pathlib import Path

import pytest

from hookseal.config.producer import producer_settings
from hookseal.ground.errors import ConfigError

DATABASE = "postgresql://user:correct-horse@db.internal/hookseal"
REDIS = "redis://:correct-horse@redis.internal/2"


def test_urls_from_the_environment(tmp_path: Path) -> None:
    """Both urls and the queue are read from the environment, or from the files that it names."""
    (tmp_path / "url").write_text(f"{REDIS}\n")
    environ = {"DATABASE_URL": DATABASE, "REDIS_URL_FILE": str(tmp_path / "url"), "HOOKSEAL_QUEUE": "another:queue"}
    settings = producer_settings(environ=environ)

    assert (DATABASE, REDIS, "another:queue") == (settings.database.url, settings.redis.url, settings.worker.queue)


@pytest.mark.parametrize("name", ["{}", "{}_FILE"])
def test_urls_that_are_given(name: str) -> None:
    """Urls that are given stand in place of those in the environment, however that names them."""
    environ = {name.format("DATABASE_URL"): "/nowhere", name.format("REDIS_URL"): "/nowhere"}
    settings = producer_settings(database_url=DATABASE, redis_url=REDIS, environ=environ)

    assert (DATABASE, REDIS) == (settings.database.url, settings.redis.url)


def test_redis_may_be_absent() -> None:
    """Without a Redis there is none, and that is no problem; without PostgreSQL nothing can be published."""
    assert None is producer_settings(environ={"DATABASE_URL": DATABASE}).loaded_redis
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        producer_settings(environ={"REDIS_URL": REDIS})


@pytest.mark.req("SEC-15", part="settings")
@pytest.mark.parametrize(("database_url", "redis_url"), [("mysql://u:correct-horse@h/d", None), (DATABASE, "h:pw-42")])
def test_urls_that_are_malformed(database_url: str, redis_url: str | None) -> None:
    """A url that is given wrong is told by the name of its variable, without its value."""
    with pytest.raises(ConfigError, match=r"_URL must be ") as caught:
        producer_settings(database_url=database_url, redis_url=redis_url, environ={})

    assert not any(text in str(caught.value) for text in ("correct-horse", "pw-42"))


def test_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is not ours: nothing leaves its environment, not even a key, and no key is asked for."""
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("SECRETS_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    environ = {"DATABASE_URL": DATABASE, "SECRETS_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    producer_settings(environ=environ)
    assert {"DATABASE_URL", "SECRETS_MASTER_KEY"} == environ.keys()

    assert DATABASE == producer_settings().database.url
    with monkeypatch.context() as undone:
        undone.delenv("SECRETS_MASTER_KEY")  # which raises if it had left
