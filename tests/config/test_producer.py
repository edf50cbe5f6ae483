"""What a producer reads from the environment of its own process."""

from pathlib import Path

import pytest

from hookseal.config.producer import producer_settings
from hookseal.errors import ConfigError

DATABASE = "postgresql://user:correct-horse@db.internal/hookseal"
REDIS = "redis://:correct-horse@redis.internal/2"


def test_urls_are_read_from_the_environment(tmp_path: Path) -> None:
    """Both urls and the queue are read from the environment, or from the files that it names."""
    (tmp_path / "url").write_text(f"{REDIS}\n")
    environ = {"DATABASE_URL": DATABASE, "REDIS_URL_FILE": str(tmp_path / "url"), "HOOKSEAL_QUEUE": "another:queue"}
    settings = producer_settings(environ=environ)

    assert (DATABASE, REDIS, "another:queue") == (settings.database.url, settings.redis.url, settings.worker.queue)


@pytest.mark.parametrize("name", ["{}", "{}_FILE"])
def test_given_urls_replace_the_environments(name: str) -> None:
    """Urls in the arguments replace those in the environment, under whichever name."""
    environ = {name.format("DATABASE_URL"): "/nowhere", name.format("REDIS_URL"): "/nowhere"}
    settings = producer_settings(database_url=DATABASE, redis_url=REDIS, environ=environ)

    assert (DATABASE, REDIS) == (settings.database.url, settings.redis.url)


def test_redis_is_optional() -> None:
    """Without a url of Redis there is none, and that is no problem; PostgreSQL is required."""
    assert None is producer_settings(environ={"DATABASE_URL": DATABASE}).loaded_redis
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        producer_settings(environ={"REDIS_URL": REDIS})


def test_other_programs_variables_are_not_checked() -> None:
    """Other variables of the process, or of a worker of another version, are not checked."""
    others = {
        "SECRETS_BACKEND": "vault",
        "SECRETS_MASTER_KEY": "of another program",
        "HOOKSEAL_ENV": "staging",
        "HOOKSEAL_DEPLOYMENT": "blue",
        "HOOKSEAL_CONCURENCY": "5",
        "HOOKSEAL_DRAIN_SECONDS": "soon",
        "HOOKSEAL_RETENTION_DAYS": "30",
        "BAO_MOUNT": "x",
    }
    assert DATABASE == producer_settings(environ=others | {"DATABASE_URL": DATABASE}).database.url


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HOOKSEAL_QUEU", "HOOKSEAL_QUEUE"),
        ("HOOKSEAL_DATABSE_URL", "HOOKSEAL_DATABASE_URL"),
        ("HOOKSEAL_REDIS_URL_FIL", "HOOKSEAL_REDIS_URL_FILE"),
    ],
)
def test_a_similar_name_is_a_typing_error(name: str, meant: str) -> None:
    """A name within two edits of one that a producer reads is a typing error, and the right name is suggested."""
    with pytest.raises(ConfigError) as caught:
        producer_settings(environ={"DATABASE_URL": DATABASE, name: "x"})
    assert [f"{name} is not a setting of hookseal, did you mean {meant}?"] == caught.value.problems


def test_prefixed_names_take_precedence() -> None:
    """The names with `HOOKSEAL_` take precedence over the plain ones, and an argument over both."""
    environ = {"DATABASE_URL": "mysql://an.app", "REDIS_URL": "redis://an.app"}
    environ |= {"HOOKSEAL_DATABASE_URL": DATABASE, "HOOKSEAL_REDIS_URL": REDIS}
    settings = producer_settings(environ=environ)
    assert (DATABASE, REDIS) == (settings.database.url, settings.redis.url)
    given = producer_settings(database_url="postgresql://given/db", redis_url="redis://given", environ=environ)
    assert ("postgresql://given/db", "redis://given") == (given.database.url, given.redis.url)


def test_an_empty_variable_is_not_set() -> None:
    """An empty variable counts as not set; an empty argument means no Redis, whatever the environment has."""
    empty = {"REDIS_URL": "", "HOOKSEAL_DATABASE_URL": "", "HOOKSEAL_QUEUE": "", "HOOKSEAL_REDIS_URL_FILE": ""}
    settings = producer_settings(environ={"DATABASE_URL": DATABASE} | empty)
    assert (DATABASE, None, "hookseal:deliveries") == (
        settings.database.url, settings.loaded_redis, settings.worker.queue,
    )  # fmt: skip
    environ = {"DATABASE_URL": DATABASE, "REDIS_URL": REDIS}
    assert None is producer_settings(redis_url="", environ=environ).loaded_redis
    for nothing in ({"DATABASE_URL": ""}, {}):
        with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
            producer_settings(environ=nothing)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (("postgresql+asyncpg://h/d?ssl=require", "valkey://h/1"), ("postgresql://h/d?sslmode=require", "redis://h/1")),
        (("postgresql+psycopg://h/d", "valkeys://h"), ("postgresql://h/d", "rediss://h")),
    ],
)
def test_urls_of_other_clients_are_accepted(given: tuple[str, str], taken: tuple[str, str]) -> None:
    """The urls that an app has for SQLAlchemy or Valkey are accepted."""
    settings = producer_settings(environ=dict(zip(("DATABASE_URL", "REDIS_URL"), given, strict=True)))
    assert taken == (settings.database.url, settings.redis.url)


@pytest.mark.req("SEC-15", part="settings")
@pytest.mark.parametrize(("database_url", "redis_url"), [("mysql://u:correct-horse@h/d", None), (DATABASE, "h:pw-42")])
def test_a_malformed_url_is_not_shown(database_url: str, redis_url: str | None) -> None:
    """A malformed url is reported by the name of its variable, without its value."""
    with pytest.raises(ConfigError, match=r"_URL must be ") as caught:
        producer_settings(database_url=database_url, redis_url=redis_url, environ={})

    assert not any(text in str(caught.value) for text in ("correct-horse", "pw-42"))


def test_the_environment_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the process is not changed, not even a key is removed, and no key is required."""
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("SECRETS_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    environ = {"DATABASE_URL": DATABASE, "SECRETS_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    producer_settings(environ=environ)
    assert {"DATABASE_URL", "SECRETS_MASTER_KEY"} == environ.keys()

    assert DATABASE == producer_settings().database.url
    with monkeypatch.context() as undone:
        undone.delenv("SECRETS_MASTER_KEY")  # which raises if it had left
