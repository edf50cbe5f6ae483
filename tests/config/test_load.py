"""The environment becomes frozen values, or every problem at once, and no value is ever shown."""

import base64
import ipaddress
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.config.load import EVERYTHING, NOTHING, load
from hookseal.config.names import FROM_FILE, LATER, OURS
from hookseal.config.settings import Environment, Part
from hookseal.dispatcher.address import AllowedNetwork
from hookseal.ground.errors import ConfigError, Defect
from hookseal.ground.ids import TenantId
from hookseal.secrets.cache import CacheLimits
from hookseal.secrets.keyring import MasterKey
from hookseal.secrets.ref import Provider

KEY = base64.b64encode(bytes(range(100, 132))).decode()
OTHER = base64.b64encode(bytes(range(140, 172))).decode()
THIRD = base64.b64encode(bytes(range(180, 212))).decode()
PREVIOUS = {"SECRETS_MASTER_KEY_PREVIOUS": KEY}
PASSWORD = "correct-horse"


def environment(**changes: str | None) -> dict[str, str]:
    """Return an environment that is complete but for the changes; None takes a name out."""
    complete: dict[str, str | None] = {
        "DATABASE_URL": f"postgresql://user:{PASSWORD}@db.internal/hookseal",
        "REDIS_URL": f"rediss://:{PASSWORD}@redis.internal:6380/2",
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": KEY,
        "PATH": "/usr/bin",
    }
    return {name: value for name, value in (complete | changes).items() if value is not None}


def problems(environ: dict[str, str], *, needs: frozenset[Part] = EVERYTHING) -> list[str]:
    """Return the problems that load finds in the environment, none if it accepts it."""
    try:
        load(environ, needs=needs)
    except ConfigError as error:
        return error.problems
    return []


def test_defaults() -> None:
    """What is not set has the default of the contract, production above all."""
    settings = load(environment())
    assert Environment.PRODUCTION is settings.environment
    assert (500, 15, 45, 25, "hookseal:deliveries") == (
        settings.worker.concurrency,
        settings.worker.sweep_seconds,
        settings.worker.lease_seconds,
        settings.worker.drain_seconds,
        settings.worker.queue,
    )
    assert ("127.0.0.1", 8080) == (settings.health.host, settings.health.port)
    assert ((), False) == (settings.egress.allow, settings.egress.allow_http)
    assert CacheLimits(ttl_seconds=300, max_entries=10_000, max_bytes=16_777_216) == settings.secrets.cache
    assert CacheLimits() == settings.secrets.cache
    assert ("info", "json") == (settings.log.level, settings.log.style)


@pytest.mark.req("SEC-10")
def test_the_overlap_is_a_day_by_default() -> None:
    """Where nothing is set, a rotation's two secrets sign for 24 hours."""
    assert 24 * 3600 == load(environment()).secrets.rotation_overlap_seconds


@pytest.mark.req("SEC-11")
def test_retired_material_is_kept_for_90_days_by_default() -> None:
    """Where nothing is set, retired material is kept for 90 days; what is set holds."""
    assert 90 == load(environment()).secrets.retired_retention_days
    assert 1 == load(environment(SECRETS_RETIRED_RETENTION_DAYS="1")).secrets.retired_retention_days


@pytest.mark.req("DEL-22")
def test_a_delivery_waits_for_a_disabled_endpoint_for_7_days_by_default() -> None:
    """Where nothing is set, what waits for a disabled endpoint does so for 7 days; what is set holds."""
    assert 7 == load(environment()).worker.held_days
    assert 30 == load(environment(HOOKSEAL_HELD_DAYS="30")).worker.held_days


def test_values() -> None:
    """What is set arrives as a value of its type."""
    settings = load(
        environment(
            HOOKSEAL_ENV="development",
            HOOKSEAL_CONCURRENCY="10000",
            HOOKSEAL_HEALTH_PORT="0",
            HOOKSEAL_ALLOW_HTTP="true",
            HOOKSEAL_EGRESS_ALLOW="10.1.0.0/16@acme, ::1",
            HOOKSEAL_LOG_LEVEL="debug",
            SECRETS_CACHE_TTL_SECONDS="0",
            SECRETS_CACHE_MAX_ENTRIES="1",
            SECRETS_CACHE_MAX_BYTES="131072",
            SECRETS_ROTATION_OVERLAP_SECONDS="604800",
        )
    )
    assert CacheLimits(ttl_seconds=0, max_entries=1, max_bytes=131_072) == settings.secrets.cache
    assert 604_800 == settings.secrets.rotation_overlap_seconds
    assert "db.internal:5432" == settings.database.address
    assert "redis.internal:6380" == settings.redis.address
    assert settings.redis.url.endswith("@redis.internal:6380/2")
    assert Provider.DB is settings.secrets.provider
    assert settings.secrets.master_key is not None
    assert Environment.DEVELOPMENT is settings.environment
    assert (10_000, 0, True, "debug") == (
        settings.worker.concurrency,
        settings.health.port,
        settings.egress.allow_http,
        settings.log.level,
    )
    assert (
        AllowedNetwork(network=ipaddress.ip_network("10.1.0.0/16"), tenant=TenantId("acme")),
        AllowedNetwork(network=ipaddress.ip_network("::1/128"), tenant=None),
    ) == settings.egress.allow


@pytest.mark.req("SEC-13", part="settings")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"DATABASE_URL": None}, "DATABASE_URL is not set"),
        ({"REDIS_URL": None}, "REDIS_URL is not set"),
        ({"DATABASE_URL": "mysql://host/db"}, "DATABASE_URL must be postgresql://"),
        ({"REDIS_URL": "http://host"}, "REDIS_URL must be redis://"),
        ({"SECRETS_PROVIDER": None}, "SECRETS_PROVIDER is not set"),
        ({"SECRETS_PROVIDER": "vault"}, "SECRETS_PROVIDER must be db or dev"),
        ({"SECRETS_PROVIDER": "DB"}, "SECRETS_PROVIDER must be db or dev"),
        ({"SECRETS_PROVIDER": "aws"}, "SECRETS_PROVIDER names a store that is not in this version yet"),
        ({"SECRETS_PROVIDER": "dev", "SECRETS_MASTER_KEY": None}, "SECRETS_PROVIDER may not be dev in production"),
        ({"SECRETS_PROVIDER": "dev", "HOOKSEAL_ENV": "test"}, "SECRETS_MASTER_KEY does nothing with"),
        ({"SECRETS_MASTER_KEY": None}, "SECRETS_MASTER_KEY is not set: db needs 32 random bytes in base64, for"),
        ({"SECRETS_MASTER_KEY": None, "SECRETS_MASTER_KEY_FILE": ""}, "SECRETS_MASTER_KEY_FILE is empty"),
        ({"SECRETS_MASTER_KEY": ""}, "SECRETS_MASTER_KEY is empty"),
        ({"SECRETS_MASTER_KEY": "not base64!"}, "SECRETS_MASTER_KEY: must be 32 random bytes"),
        ({"SECRETS_MASTER_KEY": base64.b64encode(os.urandom(31)).decode()}, "SECRETS_MASTER_KEY: must be 32 random"),
        ({"SECRETS_MASTER_KEY": base64.b64encode(bytes(32)).decode()}, "SECRETS_MASTER_KEY: looks like a placeholder"),
        ({"SECRETS_MASTER_KEY_NEXT": KEY}, "SECRETS_MASTER_KEY_NEXT repeats the key of SECRETS_MASTER_KEY"),
        ({"SECRETS_MASTER_KEY_NEXT": "c2hvcnQ="}, "SECRETS_MASTER_KEY_NEXT: must be 32 random bytes"),
        (
            {"SECRETS_MASTER_KEY_PREVIOUS": f"{OTHER},{KEY}"},
            "SECRETS_MASTER_KEY_PREVIOUS repeats the key of SECRETS_MAS",
        ),
        ({"SECRETS_MASTER_KEY_PREVIOUS": f"{OTHER},{OTHER}"}, "SECRETS_MASTER_KEY_PREVIOUS repeats the key of SECRETS"),
        ({"SECRETS_MASTER_KEY_PREVIOUS": f"{OTHER},"}, "SECRETS_MASTER_KEY_PREVIOUS: must be 32 random bytes"),
        (
            {"SECRETS_MASTER_KEY_NEXT": OTHER, "SECRETS_MASTER_KEY_PREVIOUS": OTHER},
            "SECRETS_MASTER_KEY_PREVIOUS repeats the key of SECRETS_MASTER_KEY_NEXT",
        ),
        ({"SECRETS_MASTER_KEY_PREVIOUS": ",".join([OTHER] * 17)}, "SECRETS_MASTER_KEY_PREVIOUS has more than 16 keys"),
        (
            {
                "SECRETS_PROVIDER": "dev",
                "HOOKSEAL_ENV": "test",
                "SECRETS_MASTER_KEY": None,
                "SECRETS_MASTER_KEY_NEXT": KEY,
            },
            "SECRETS_MASTER_KEY_NEXT does nothing with SECRETS_PROVIDER dev",
        ),
        ({"SECRETS_CACHE_TTL_SECONDS": "3601"}, "SECRETS_CACHE_TTL_SECONDS must be a whole number from 0 to 3600"),
        ({"SECRETS_CACHE_TTL_SECONDS": "-1"}, "SECRETS_CACHE_TTL_SECONDS must be"),
        ({"SECRETS_CACHE_MAX_ENTRIES": "0"}, "SECRETS_CACHE_MAX_ENTRIES must be a whole number from 1 to 1000000"),
        ({"SECRETS_CACHE_MAX_ENTRIES": "1000001"}, "SECRETS_CACHE_MAX_ENTRIES must be"),
        (
            {"SECRETS_CACHE_MAX_BYTES": "131071"},
            "SECRETS_CACHE_MAX_BYTES must be a whole number from 131072 to 536870912",
        ),
        ({"SECRETS_CACHE_MAX_BYTES": "536870913"}, "SECRETS_CACHE_MAX_BYTES must be"),
        ({"SECRETS_CACHE_MAX_BYTES": "16MiB"}, "SECRETS_CACHE_MAX_BYTES must be"),
        (
            {"SECRETS_ROTATION_OVERLAP_SECONDS": "604801"},
            "SECRETS_ROTATION_OVERLAP_SECONDS must be a whole number from 0",
        ),
        (
            {"HOOKSEAL_HELD_DAYS": "31"},
            "HOOKSEAL_HELD_DAYS must be a whole number from 1 to 30",
        ),
        (
            {"SECRETS_RETIRED_RETENTION_DAYS": "0"},
            "SECRETS_RETIRED_RETENTION_DAYS must be a whole number from 1 to 3650",
        ),
        ({"HOOKSEAL_ENV": "prod"}, "HOOKSEAL_ENV must be production, development or test"),
        ({"HOOKSEAL_ALLOW_HTTP": "true"}, "HOOKSEAL_ALLOW_HTTP may be true only outside production"),
        ({"HOOKSEAL_ALLOW_HTTP": "1"}, "HOOKSEAL_ALLOW_HTTP must be true or false"),
        ({"HOOKSEAL_CONCURRENCY": "0"}, "HOOKSEAL_CONCURRENCY must be a whole number from 1 to 10000"),
        ({"HOOKSEAL_CONCURRENCY": "10001"}, "HOOKSEAL_CONCURRENCY must be"),
        ({"HOOKSEAL_CONCURRENCY": "5.0"}, "HOOKSEAL_CONCURRENCY must be"),
        ({"HOOKSEAL_CONCURRENCY": "1_0"}, "HOOKSEAL_CONCURRENCY must be"),
        pytest.param(
            {"HOOKSEAL_LEASE_SECONDS": "25"},
            "HOOKSEAL_DRAIN_SECONDS must be smaller than HOOKSEAL_LEASE_SECONDS",
            marks=pytest.mark.req("DUR-02"),
        ),
        ({"HOOKSEAL_HEALTH_PORT": "65536"}, "HOOKSEAL_HEALTH_PORT must be"),
        ({"HOOKSEAL_HEALTH_PORT": "tcp://10.0.0.1:80"}, "HOOKSEAL_HEALTH_PORT was set by Kubernetes"),
        ({"HOOKSEAL_HEALTH_HOST": "a b"}, "HOOKSEAL_HEALTH_HOST must be"),
        ({"HOOKSEAL_QUEUE": "a b"}, "HOOKSEAL_QUEUE must be"),
        ({"HOOKSEAL_QUEUE": "deliveries\n"}, "HOOKSEAL_QUEUE must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.1/8"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.0/8@_system"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.0/8,"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_LOG_LEVEL": "INFO"}, "HOOKSEAL_LOG_LEVEL must be"),
        ({"HOOKSEAL_LOG_FORMAT": "text"}, "HOOKSEAL_LOG_FORMAT must be"),
        ({"HOOKSEAL_LISTEN": "1"}, "HOOKSEAL_LISTEN must be true or false"),
        ({"HOOKSEAL_RETENTION_DAYS": "30"}, "HOOKSEAL_RETENTION_DAYS is not in this version yet: remove it"),
        ({"HOOKSEAL_CONCURENCY": "5"}, "HOOKSEAL_CONCURENCY is no setting of hookseal, did you mean HOOKSEAL_CONC"),
    ],
)
def test_each_problem(changes: dict[str, str | None], expected: str) -> None:
    """Every class of bad setting is one problem that begins with the name of the variable."""
    found = problems(environment(**changes))
    assert [True] == [text.startswith(expected) for text in found], found


def test_urls_of_ours_win() -> None:
    """`HOOKSEAL_DATABASE_URL` and `HOOKSEAL_REDIS_URL` win over what an app has under the plain names."""
    ours = {"HOOKSEAL_DATABASE_URL": "postgresql://ours/db", "HOOKSEAL_REDIS_URL": "valkeys://ours/1"}
    settings = load(environment(DATABASE_URL="mysql://an.app", REDIS_URL="", **ours))
    assert ("postgresql://ours/db", "HOOKSEAL_DATABASE_URL") == (settings.database.url, settings.database.variable)
    assert ("rediss://ours/1", "HOOKSEAL_REDIS_URL") == (settings.redis.url, settings.redis.variable)
    plain = load(environment())
    assert ("DATABASE_URL", "REDIS_URL") == (plain.database.variable, plain.redis.variable)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://h/d", "HOOKSEAL_DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://h/d?sslmod=x", "HOOKSEAL_DATABASE_URL has the parameter sslmod, which is none of PostgreSQL"),
    ],
)
def test_a_problem_has_the_name_that_was_given(url: str, says: str) -> None:
    """What is wrong with a url is said of the variable that holds it."""
    (found,) = problems(environment(DATABASE_URL=None, HOOKSEAL_DATABASE_URL=url))
    assert found.startswith(says)


def test_all_problems_at_once() -> None:
    """Problems of names, forms and rules between variables are told together."""
    found = problems(
        environment(
            DATABASE_URL=None,
            SECRETS_MASTER_KEY="c2hvcnQ=",
            HOOKSEAL_ENV="production",
            HOOKSEAL_ALLOW_HTTP="true",
            HOOKSEAL_RETENTION_DAYS="30",
            HOOKSEAL_CONCURRENCY="many",
            SECRETS_PROVIDR="db",
        )
    )
    names = [text.replace(":", "").split()[0] for text in found]
    assert [
        "HOOKSEAL_RETENTION_DAYS",
        "SECRETS_PROVIDR",
        "DATABASE_URL",
        "SECRETS_MASTER_KEY",
        "HOOKSEAL_CONCURRENCY",
        "HOOKSEAL_ALLOW_HTTP",
    ] == names


@pytest.mark.parametrize("part", list(Part))
def test_a_part_that_is_not_needed(part: Part) -> None:
    """A part that is not needed may be absent, is checked if it is there, and is a fault of ours if it is used."""
    needs = EVERYTHING - {part}
    assert [] == problems(environment(**{part.value: None, "SECRETS_MASTER_KEY": KEY}), needs=needs)
    assert [True] == [text.startswith(part) for text in problems(environment(**{part.value: "bad"}), needs=needs)]
    settings = load(environment(), needs=needs)
    parts = {Part.DATABASE: "database", Part.REDIS: "redis", Part.SECRETS: "secrets"}
    with pytest.raises(Defect, match=part):
        getattr(settings, parts[part])


def test_nothing_needed() -> None:
    """An empty environment is enough for who needs no part."""
    assert Environment.PRODUCTION is load({}, needs=NOTHING).environment


def test_dev() -> None:
    """The provider dev has no key, and is there outside production only."""
    settings = load(environment(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=None, HOOKSEAL_ENV="test"))
    assert (Provider.DEV, None) == (settings.secrets.provider, settings.secrets.master_key)


@pytest.mark.req("SEC-15", part="settings")
def test_nothing_shows_a_password_or_a_key() -> None:
    """No repr shows a password or a key, and the key cannot be pickled."""
    settings = load(environment(SECRETS_MASTER_KEY_NEXT=OTHER, SECRETS_MASTER_KEY_PREVIOUS=THIRD))
    for shown in (repr(settings), repr(settings.secrets), repr(settings.secrets.keyring)):
        for hidden in (PASSWORD, KEY, OTHER, THIRD, *(base64.b64decode(text).hex() for text in (KEY, OTHER, THIRD))):
            assert hidden not in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings)


@pytest.mark.req("SEC-04")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HOOKSEAL_ENV": "prod"},
        {"SECRETS_MASTER_KEY_NEXT": KEY},
        {"SECRETS_MASTER_KEY_NEXT": OTHER},
        {"SECRETS_MASTER_KEY_NEXT": "c2hvcnQ="},
        PREVIOUS,
        {"SECRETS_MASTER_KEY_PREVIOUS": OTHER},
        {"SECRETS_MASTER_KEY_PREVIOUS": f"{OTHER},{KEY}"},
    ],
)
def test_key_material_leaves_the_environment(changes: dict[str, str]) -> None:
    """Once loaded, in vain or not, no key is left in the environment, and all else is."""
    environ = environment(**changes)
    problems(environ)
    assert not [name for name in environ if name.startswith("SECRETS_MASTER_KEY")]
    assert not [value for value in environ.values() if KEY in value or OTHER in value]
    assert "/usr/bin" == environ["PATH"]


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the settings are those of the process, and the key leaves it."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    assert Provider.DB is load().secrets.provider
    assert "SECRETS_MASTER_KEY" not in os.environ


@pytest.mark.req("SEC-04", part="file")
def test_a_key_from_a_file(tmp_path: Path) -> None:
    """The key may be in a file; in production nobody else may be able to read it."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    by_file = {"SECRETS_MASTER_KEY": None, "SECRETS_MASTER_KEY_FILE": str(file)}
    file.chmod(0o400)
    from_file, direct = load(environment(**by_file)).secrets.master_key, load(environment()).secrets.master_key
    assert from_file is not None
    assert direct is not None
    assert from_file.is_same_key(direct)
    file.chmod(0o440)
    expected = "SECRETS_MASTER_KEY_FILE names a file that others may read: take that right away (chmod 0400)"
    assert [expected] == problems(environment(**by_file))
    assert [] == problems(environment(**by_file, HOOKSEAL_ENV="development"))


@pytest.mark.req("SEC-04")
@pytest.mark.parametrize("name", ["SECRETS_MASTER_KEY_NEXT", "SECRETS_MASTER_KEY_PREVIOUS"])
def test_the_other_keys_from_files(name: str, tmp_path: Path) -> None:
    """So may those of a change; in production nobody else may be able to read theirs either."""
    file = tmp_path / "keys"
    file.write_text(f"{OTHER},{THIRD}\n" if name == "SECRETS_MASTER_KEY_PREVIOUS" else f"{OTHER}\n")
    file.chmod(0o400)
    secrets = load(environment(**{f"{name}_FILE": str(file)})).secrets
    held = [key.key_id for key in (*([secrets.next_key] if secrets.next_key else []), *secrets.previous_keys)]
    texts = [OTHER, THIRD] if name == "SECRETS_MASTER_KEY_PREVIOUS" else [OTHER]
    assert [MasterKey.parse(text, variable=name).key_id for text in texts] == held
    assert secrets.keyring is not None
    assert [KEY, *texts] == [
        text
        for key in secrets.keyring.keys
        for text in (KEY, OTHER, THIRD)
        if key.is_same_key(MasterKey.parse(text, variable=name))
    ]
    file.chmod(0o404)
    expected = f"{name}_FILE names a file that others may read: take that right away (chmod 0400)"
    assert [expected] == problems(environment(**{f"{name}_FILE": str(file)}))
    assert [] == problems(environment(**{f"{name}_FILE": str(file)}, HOOKSEAL_ENV="development"))
    assert [f"{name} and {name}_FILE are both set: remove one"] == problems(
        environment(**{f"{name}_FILE": str(file), name: THIRD}, HOOKSEAL_ENV="development")
    )


@pytest.mark.req("SEC-04")
def test_the_ring_of_a_change() -> None:
    """All keys that are given are held; the next one is left out where it may not be registered yet."""
    environ = environment(SECRETS_MASTER_KEY_NEXT=OTHER, SECRETS_MASTER_KEY_PREVIOUS=THIRD)
    secrets = load(environ).secrets
    ids = [MasterKey.parse(text, variable="x").key_id for text in (KEY, OTHER, THIRD)]
    assert secrets.keyring is not None
    assert secrets.settled_keyring is not None
    assert ids == [key.key_id for key in secrets.keyring.keys]
    assert [ids[0], ids[2]] == [key.key_id for key in secrets.settled_keyring.keys]
    alone = load(environment()).secrets
    assert alone.keyring is not None
    assert ids[:1] == [key.key_id for key in alone.keyring.keys]
    none = load(environment(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=None, HOOKSEAL_ENV="test")).secrets
    assert (None, None) == (none.keyring, none.settled_keyring)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be read is one problem, which names the variable and not the path."""
    missing = environment(DATABASE_URL=None, DATABASE_URL_FILE=str(tmp_path / "missing"))
    assert ["DATABASE_URL_FILE names a file that cannot be read (FileNotFoundError)"] == problems(missing)


CANARY = "Zq7Xw9"
SHAPES = st.sampled_from([
    "{}",
    " {}\n",
    "postgresql://user:{}@host/db",
    "postgresql://user:{}/x@host/db",
    "postgresql://user:80/{}@host/db",
    "postgresql://user:x@host:{}/db",
    "postgresql://[{}/db",
    "postgresql://u@h/d?sslmode={}",
    "postgresql+asyncpg://u:{}@h/d?ssl=require",
    "postgresql://u@h/d?{}=1",
    "postgresql://u@h/d?options={}&connect_timeout=1",
    "valkey://:{}@h/0",
    "redis://:{}@host/0",
    "redis://:{}#@host/0",
    "redis://host/{}",
    "unix://:{}@",
    "10.0.0.0/8@{}",
    "tcp://{}:80",
    "{}\x00",
    "{}\udcff",
    "db",
    "dev",
    "test",
    "production",
    "true",
    "1",
    "",
    KEY,
    KEY[:-8] + "{}",
])  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(sorted({*OURS, *LATER, *FROM_FILE, "PATH", "HOOKSEAL_TEST_X", "HOOKSEAL_PORT_80_TCP_ADDR"})),
    st.text("ABCDEFGHIKLNOPRSTUVY_\x1b", max_size=16).map("HOOKSEAL_".__add__),
)


@pytest.mark.req("SEC-15", part="settings")
@given(
    environ=st.dictionaries(NAMES, SHAPES.map(lambda shape: shape.format(CANARY)), max_size=12),
    needs=st.sets(st.sampled_from(Part)).map(frozenset),
)
def test_no_environment_shows_a_value(environ: dict[str, str], needs: frozenset[Part]) -> None:
    """Of any environment load gives settings, or a `ConfigError` that holds no value and no foreign error."""
    refused: ConfigError | None = None
    try:
        settings = load(environ, needs=needs)
        shown = repr((settings.loaded_database, settings.loaded_redis, settings.loaded_secrets))
    except ConfigError as error:
        refused, shown = error, repr(error)
    assert CANARY not in shown
    assert KEY[:20] not in shown
    if refused is not None:
        assert refused.problems
        assert all(map(str.isprintable, refused.problems))
        assert refused.__cause__ is refused.__context__ is None
