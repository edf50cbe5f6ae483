"""The settings of a producer and of the networks that requests may reach."""

import os
import pickle
from pathlib import Path

import pytest

from hookseal.config.egress import certificates, proxy
from hookseal.config.load import NOTHING, load
from hookseal.config.producer import producer_settings
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import ConfigError
from tests.doubles.certificates import authority

CANARY = "canary-4f1d"
DATABASE = "postgresql://user:correct-horse@db.internal/hookseal"
REDIS = "redis://:correct-horse@redis.internal/2"


def problems(environ: dict[str, str]) -> list[str]:
    """Return the problems of these variables."""
    with pytest.raises(ConfigError) as caught:
        load(environ, needs=NOTHING)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.internal:3128", EgressProxy(host="proxy.internal", port=3128)),
        ("http://proxy.internal:3128/", EgressProxy(host="proxy.internal", port=3128)),
        ("http://[fd00::1]:8080", EgressProxy(host="fd00::1", port=8080)),
        ("http://u:p%40%2F%3A%C3%AB@10.0.0.1:1", EgressProxy(host="10.0.0.1", port=1, credentials="u:p@/:ë".encode())),
        ("http://u:@h:65535", EgressProxy(host="h", port=65_535, credentials=b"u:")),
    ],
)
def test_a_proxy_url_is_parsed(text: str, expected: EgressProxy) -> None:
    """Host and port are read from the url, and the percent-encoded credentials are decoded."""
    assert expected == proxy(text)


@pytest.mark.parametrize(
    "text",
    [
        *(f"https://u:{CANARY}@h:1", f"http://u:{CANARY}@h", f"http://{CANARY}@h:1", f"http://u:{CANARY}@h:0"),
        *(
            f"http://u:{CANARY}@h:70000",
            f"http://u:{CANARY}/x@h:1",
            f"http://u:{CANARY}@h:1/path",
            f"socks5://{CANARY}:1",
        ),
        *(f"http://u:{CANARY}@x@h:1", f"http://u:{CANARY}\r\n@h:1", f"http://h:1?{CANARY}", "http://:1", CANARY),
    ],
)
def test_another_url_is_refused_without_its_value(text: str) -> None:
    [problem] = problems({"HOOKSEAL_EGRESS_PROXY": text})

    assert problem.startswith("HOOKSEAL_EGRESS_PROXY must be http://HOST:PORT")
    assert CANARY not in problem


@pytest.mark.req("SEC-15", part="settings")
def test_proxy_credentials_are_masked(tmp_path: Path) -> None:
    """The credentials of the proxy, here from a file, are in no repr, and cannot be copied or pickled."""
    path = tmp_path / "proxy"
    path.write_text(f"http://user:{CANARY}@proxy.internal:3128\n")
    settings = load({"HOOKSEAL_EGRESS_PROXY_FILE": str(path)}, needs=NOTHING)

    assert settings.egress.proxy is not None
    assert f"user:{CANARY}".encode() == settings.egress.proxy.credentials
    assert CANARY not in repr(settings)
    with pytest.raises(TypeError, match="must not be copied or pickled"):
        pickle.dumps(settings.egress)


def test_every_certificate_is_read(tmp_path: Path) -> None:
    one, other = authority("one"), authority("other")
    path = tmp_path / "ca.pem"
    path.write_text(f"Büro\n{one.pem}# and\n{other.pem}", encoding="utf-8")
    settings = load({"HOOKSEAL_EGRESS_CA_FILE": str(path)}, needs=NOTHING)

    assert f"{one.pem}{other.pem}".strip() == settings.egress.trusted == certificates(str(path))


def test_an_unusable_certificate_file_is_refused(tmp_path: Path) -> None:
    """A file that is absent, not regular, too large or without a certificate is refused by the variable's name."""
    broken = authority().pem.replace("MII", "AAA")
    texts = {"empty": "", "words": "words", "broken": broken, "large": "x" * 1_048_577}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe")
    for name in (*texts, "pipe", "missing", "."):
        [problem] = problems({"HOOKSEAL_EGRESS_CA_FILE": str(tmp_path / name)})
        assert problem.startswith("HOOKSEAL_EGRESS_CA_FILE names a file that")
        assert str(tmp_path) not in problem


def test_urls_are_read_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{REDIS}\n")
    environ = {"DATABASE_URL": DATABASE, "REDIS_URL_FILE": str(tmp_path / "url"), "HOOKSEAL_QUEUE": "another:queue"}
    settings = producer_settings(environ=environ)

    assert (DATABASE, REDIS, "another:queue") == (settings.database.url, settings.redis.url, settings.worker.queue)


@pytest.mark.parametrize("name", ["{}", "{}_FILE"])
def test_given_urls_replace_the_environments(name: str) -> None:
    environ = {name.format("DATABASE_URL"): "/nowhere", name.format("REDIS_URL"): "/nowhere"}
    settings = producer_settings(database_url=DATABASE, redis_url=REDIS, environ=environ)

    assert (DATABASE, REDIS) == (settings.database.url, settings.redis.url)


def test_redis_is_optional() -> None:
    """Without a url of Redis there is none, and that is no problem; PostgreSQL is required."""
    assert None is producer_settings(environ={"DATABASE_URL": DATABASE}).loaded_redis
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        producer_settings(environ={"REDIS_URL": REDIS})


def test_other_programs_variables_are_not_checked() -> None:
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
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("SECRETS_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    environ = {"DATABASE_URL": DATABASE, "SECRETS_MASTER_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    producer_settings(environ=environ)
    assert {"DATABASE_URL", "SECRETS_MASTER_KEY"} == environ.keys()

    assert DATABASE == producer_settings().database.url
    with monkeypatch.context() as undone:
        undone.delenv("SECRETS_MASTER_KEY")  # which raises if it had left
