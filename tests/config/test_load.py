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
from hookseal.config.names import FROM_FILE, KNOWN
from hookseal.config.settings import Environment, Part
from hookseal.dispatcher.core.url import AllowedNetwork
from hookseal.errors import ConfigError, Defect
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.resolve.cache import CacheLimits

KEY = base64.b64encode(bytes(range(100, 132))).decode()
OTHER = base64.b64encode(bytes(range(140, 172))).decode()
THIRD = base64.b64encode(bytes(range(180, 212))).decode()
PREVIOUS = {"SECRETS_MASTER_KEY_PREVIOUS": KEY}
PASSWORD = "correct-horse"


def environment(**changes: str | None) -> dict[str, str]:
    """Return a complete environment with these changes; None removes a name."""
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


def test_unset_variables_have_their_defaults() -> None:
    """Variables that are not set have their documented defaults; the environment is production."""
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
    """By default both secrets of a rotation sign for 24 hours."""
    assert 24 * 3600 == load(environment()).secrets.rotation_overlap_seconds


@pytest.mark.req("SEC-11")
def test_retired_material_is_kept_for_90_days_by_default() -> None:
    """By default retired secrets are stored for 90 days; another value can be set."""
    assert 90 == load(environment()).secrets.retired_retention_days
    assert 1 == load(environment(SECRETS_RETIRED_RETENTION_DAYS="1")).secrets.retired_retention_days


@pytest.mark.req("DEL-22")
def test_a_delivery_waits_for_a_disabled_endpoint_for_7_days_by_default() -> None:
    """By default a delivery waits 7 days for a disabled endpoint; another value can be set."""
    assert 7 == load(environment()).worker.held_days
    assert 30 == load(environment(HOOKSEAL_HELD_DAYS="30")).worker.held_days
    assert 5 * 86_400 == load(environment()).worker.disable_after_seconds
    assert 3_600 == load(environment(HOOKSEAL_DISABLE_AFTER_SECONDS="3600")).worker.disable_after_seconds


@pytest.mark.req("DEL-16")
def test_finished_deliveries_are_kept_for_30_days_by_default() -> None:
    """By default finished deliveries are kept for 30 days; another value can be set."""
    assert 30 == load(environment()).worker.retention_days
    assert 3_650 == load(environment(HOOKSEAL_RETENTION_DAYS="3650")).worker.retention_days


def test_a_set_value_has_its_type() -> None:
    """A value that is set is returned in its type."""
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
        ({"SECRETS_PROVIDER": "vault"}, "SECRETS_PROVIDER must be db, aws, gcp, openbao or dev"),
        ({"SECRETS_PROVIDER": "DB"}, "SECRETS_PROVIDER must be db, aws, gcp, openbao or dev"),
        ({"SECRETS_PROVIDER": "aws"}, "AWS_REGION is not set: the provider aws needs it"),
        ({"SECRETS_PROVIDER": "dev", "SECRETS_MASTER_KEY": None}, "SECRETS_PROVIDER may not be dev in production"),
        ({"SECRETS_PROVIDER": "dev", "HOOKSEAL_ENV": "test"}, "SECRETS_MASTER_KEY has no effect with"),
        ({"SECRETS_MASTER_KEY": None}, "SECRETS_MASTER_KEY is not set: db needs 32 random bytes in base64, for"),
        ({"SECRETS_MASTER_KEY": None, "SECRETS_MASTER_KEY_FILE": ""}, "SECRETS_MASTER_KEY_FILE is empty"),
        ({"SECRETS_MASTER_KEY": ""}, "SECRETS_MASTER_KEY is empty: it is required, so give it a value"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is empty: it is required, so give it a value"),
        ({"DATABASE_URL": None, "DATABASE_URL_FILE": ""}, "DATABASE_URL_FILE is empty: it is required, so give it"),
        ({"REDIS_URL": ""}, "REDIS_URL is empty: it is required, so give it a value"),
        ({"SECRETS_PROVIDER": ""}, "SECRETS_PROVIDER is empty: it is required, so give it a value"),
        ({"HOOKSEAL_QUEUE": ""}, "HOOKSEAL_QUEUE is empty: give it a value or remove it"),
        ({"SECRETS_MASTER_KEY_NEXT": ""}, "SECRETS_MASTER_KEY_NEXT is empty: give it a value or remove it"),
        ({"DATABASE_URL": "postgresql://h:x/d"}, "DATABASE_URL has a port that is not a number from 1 to 65535"),
        ({"REDIS_URL": "redis://h:x"}, "REDIS_URL has a port that is not a number from 1 to 65535"),
        (
            {"HOOKSEAL_LISTEN_URL": "postgresql://h:x/d"},
            "HOOKSEAL_LISTEN_URL has a port that is not a number from 1 to 65535",
        ),
        (
            {"HOOKSEAL_PROCESSES": "65"},
            "HOOKSEAL_PROCESSES must be a whole number from 1 to 64; for more processes start another",
        ),
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
            "SECRETS_MASTER_KEY_NEXT has no effect with SECRETS_PROVIDER dev",
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
        ({"HOOKSEAL_LOG_LEVEL": "loud"}, "HOOKSEAL_LOG_LEVEL must be"),
        ({"HOOKSEAL_HEALTH_URL": "127.0.0.1:8080"}, "HOOKSEAL_HEALTH_URL must be"),
        ({"HOOKSEAL_LOG_FORMAT": "text"}, "HOOKSEAL_LOG_FORMAT must be"),
        ({"HOOKSEAL_LISTEN": "1"}, "HOOKSEAL_LISTEN must be true or false"),
        ({"HOOKSEAL_RETENTION_DAYS": "0"}, "HOOKSEAL_RETENTION_DAYS must be a whole number from 1 to 3650"),
        ({"HOOKSEAL_ENDPOINT_CONCURRENCY": "0"}, "HOOKSEAL_ENDPOINT_CONCURRENCY must be a whole number from 1 to"),
        ({"HOOKSEAL_CONCURENCY": "5"}, "HOOKSEAL_CONCURENCY is not a setting of hookseal, did you mean HOOKSEAL_CONC"),
    ],
)
def test_each_problem_names_its_variable(changes: dict[str, str | None], expected: str) -> None:
    """Every kind of bad setting is one problem that begins with the name of the variable."""
    found = problems(environment(**changes))
    assert [True] == [text.startswith(expected) for text in found], found


def test_an_unneeded_empty_variable_is_not_required() -> None:
    """Where a part is not needed, its empty variable is not called required."""
    (found,) = problems(environment(REDIS_URL=""), needs=frozenset({Part.DATABASE, Part.SECRETS}))
    assert "REDIS_URL is empty: give it a value or remove it" == found
    (found,) = problems(environment(SECRETS_MASTER_KEY=""), needs=frozenset({Part.DATABASE}))
    assert "SECRETS_MASTER_KEY is empty: give it a value or remove it" == found


def test_prefixed_urls_take_precedence() -> None:
    """`HOOKSEAL_DATABASE_URL` and `HOOKSEAL_REDIS_URL` take precedence over the plain names of an app."""
    ours = {"HOOKSEAL_DATABASE_URL": "postgresql://ours/db", "HOOKSEAL_REDIS_URL": "valkeys://ours/1"}
    settings = load(environment(DATABASE_URL="mysql://an.app", REDIS_URL="", **ours))
    assert ("postgresql://ours/db", "HOOKSEAL_DATABASE_URL") == (settings.database.url, settings.database.variable)
    assert ("rediss://ours/1", "HOOKSEAL_REDIS_URL") == (settings.redis.url, settings.redis.variable)
    plain = load(environment())
    assert ("DATABASE_URL", "REDIS_URL") == (plain.database.variable, plain.redis.variable)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://h/d", "HOOKSEAL_DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://h/d?sslmod=x", "HOOKSEAL_DATABASE_URL has the parameter sslmod, which PostgreSQL does not know"),
        ("postgresql://u:p/w@h/d", "HOOKSEAL_DATABASE_URL has an '@' after the first '/' or '?'"),
    ],
)
def test_a_problem_names_the_variable_with_the_url(url: str, message: str) -> None:
    """A problem with a url names the variable that has the url."""
    (found,) = problems(environment(DATABASE_URL=None, HOOKSEAL_DATABASE_URL=url))
    assert found.startswith(message)


def test_all_problems_are_reported_together() -> None:
    """Problems of names, of forms and of rules between variables are reported together."""
    found = problems(
        environment(
            DATABASE_URL=None,
            SECRETS_MASTER_KEY="c2hvcnQ=",
            HOOKSEAL_ENV="production",
            HOOKSEAL_ALLOW_HTTP="true",
            HOOKSEAL_ENDPOINT_CONCURENCY="2",
            HOOKSEAL_CONCURRENCY="many",
            SECRETS_PROVIDR="db",
        )
    )
    names = [text.replace(":", "").split()[0] for text in found]
    assert [
        "HOOKSEAL_ENDPOINT_CONCURENCY",
        "SECRETS_PROVIDR",
        "DATABASE_URL",
        "SECRETS_MASTER_KEY",
        "HOOKSEAL_CONCURRENCY",
        "HOOKSEAL_ALLOW_HTTP",
    ] == names


@pytest.mark.parametrize("part", list(Part))
def test_an_unneeded_part_is_checked_and_not_used(part: Part) -> None:
    """A part that is not needed may be absent, is checked if present, and must not be used."""
    needs = EVERYTHING - {part}
    assert [] == problems(environment(**{part.value: None, "SECRETS_MASTER_KEY": KEY}), needs=needs)
    assert [True] == [text.startswith(part) for text in problems(environment(**{part.value: "bad"}), needs=needs)]
    settings = load(environment(), needs=needs)
    parts = {Part.DATABASE: "database", Part.REDIS: "redis", Part.SECRETS: "secrets"}
    with pytest.raises(Defect, match=part):
        getattr(settings, parts[part])


def test_an_empty_environment_suffices_if_nothing_is_needed() -> None:
    """An empty environment is enough if no part is needed."""
    assert Environment.PRODUCTION is load({}, needs=NOTHING).environment


def test_dev_works_outside_production_only() -> None:
    """The provider dev needs no key, and works outside production only."""
    settings = load(environment(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=None, HOOKSEAL_ENV="test"))
    assert (Provider.DEV, None) == (settings.secrets.provider, settings.secrets.master_key)


@pytest.mark.req("SEC-15", part="settings")
def test_no_repr_shows_a_password_or_key() -> None:
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
def test_keys_are_removed_from_the_environment(changes: dict[str, str]) -> None:
    """After a load, successful or not, no key is left in the environment, and everything else is."""
    environ = environment(**changes)
    problems(environ)
    assert not [name for name in environ if name.startswith("SECRETS_MASTER_KEY")]
    assert not [value for value in environ.values() if KEY in value or OTHER in value]
    assert "/usr/bin" == environ["PATH"]


def test_the_default_is_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the settings come from the environment of the process, and the key is removed from it."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    assert Provider.DB is load().secrets.provider
    assert "SECRETS_MASTER_KEY" not in os.environ


@pytest.mark.req("SEC-04", part="file")
def test_a_key_file_must_be_private_in_production(tmp_path: Path) -> None:
    """The key may be in a file; in production no other user may be able to read it."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    by_file = {"SECRETS_MASTER_KEY": None, "SECRETS_MASTER_KEY_FILE": str(file)}
    file.chmod(0o400)
    from_file, direct = load(environment(**by_file)).secrets.master_key, load(environment()).secrets.master_key
    assert from_file is not None
    assert direct is not None
    assert from_file.is_same_key(direct)
    file.chmod(0o440)
    expected = "SECRETS_MASTER_KEY_FILE names a file that other users may read: remove that right (chmod 0400)"
    assert [expected] == problems(environment(**by_file))
    assert [] == problems(environment(**by_file, HOOKSEAL_ENV="development"))


@pytest.mark.req("SEC-04")
@pytest.mark.parametrize("name", ["SECRETS_MASTER_KEY_NEXT", "SECRETS_MASTER_KEY_PREVIOUS"])
def test_other_key_files_must_be_private_in_production(name: str, tmp_path: Path) -> None:
    """The other keys of a change may be in files, too; in production no other user may be able to read them."""
    file = tmp_path / "keys"
    file.write_text(f"{OTHER},{THIRD}\n" if name == "SECRETS_MASTER_KEY_PREVIOUS" else f"{OTHER}\n")
    file.chmod(0o400)
    secrets = load(environment(**{f"{name}_FILE": str(file)})).secrets
    key_ids = [key.key_id for key in (*([secrets.next_key] if secrets.next_key else []), *secrets.previous_keys)]
    texts = [OTHER, THIRD] if name == "SECRETS_MASTER_KEY_PREVIOUS" else [OTHER]
    assert [MasterKey.parse(text, variable=name).key_id for text in texts] == key_ids
    assert secrets.keyring is not None
    assert [KEY, *texts] == [
        text
        for key in secrets.keyring.keys
        for text in (KEY, OTHER, THIRD)
        if key.is_same_key(MasterKey.parse(text, variable=name))
    ]
    file.chmod(0o404)
    expected = f"{name}_FILE names a file that other users may read: remove that right (chmod 0400)"
    assert [expected] == problems(environment(**{f"{name}_FILE": str(file)}))
    assert [] == problems(environment(**{f"{name}_FILE": str(file)}, HOOKSEAL_ENV="development"))
    assert [f"{name} and {name}_FILE are both set: remove one"] == problems(
        environment(**{f"{name}_FILE": str(file), name: THIRD}, HOOKSEAL_ENV="development")
    )


@pytest.mark.req("SEC-04")
def test_the_keyring_has_the_configured_keys() -> None:
    """The keyring has all configured keys, or all but the next one where that may not be registered yet."""
    environ = environment(SECRETS_MASTER_KEY_NEXT=OTHER, SECRETS_MASTER_KEY_PREVIOUS=THIRD)
    secrets = load(environ).secrets
    ids = [MasterKey.parse(text, variable="x").key_id for text in (KEY, OTHER, THIRD)]
    assert secrets.keyring is not None
    assert secrets.registered_keyring is not None
    assert ids == [key.key_id for key in secrets.keyring.keys]
    assert [ids[0], ids[2]] == [key.key_id for key in secrets.registered_keyring.keys]
    alone = load(environment()).secrets
    assert alone.keyring is not None
    assert ids[:1] == [key.key_id for key in alone.keyring.keys]
    none = load(environment(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=None, HOOKSEAL_ENV="test")).secrets
    assert (None, None) == (none.keyring, none.registered_keyring)


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
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
    st.sampled_from(sorted({*KNOWN, *FROM_FILE, "PATH", "HOOKSEAL_TEST_X", "HOOKSEAL_PORT_80_TCP_ADDR"})),
    st.text("ABCDEFGHIKLNOPRSTUVY_\x1b", max_size=16).map("HOOKSEAL_".__add__),
)


@pytest.mark.req("SEC-15", part="settings")
@given(
    environ=st.dictionaries(NAMES, SHAPES.map(lambda shape: shape.format(CANARY)), max_size=12),
    needs=st.sets(st.sampled_from(Part)).map(frozenset),
)
def test_no_error_shows_a_value(environ: dict[str, str], needs: frozenset[Part]) -> None:
    """For any environment, load returns settings, or raises a `ConfigError` without a value or another error."""
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


def test_the_listen_url_is_checked() -> None:
    """The url for LISTEN is checked like that of the database, under its own name, and is not shown."""
    url = "postgresql://user:hunter2@db.example:5433/app"
    settings = load(environment(HOOKSEAL_LISTEN_URL=url))
    assert settings.listen_database is not None
    assert (url, "db.example:5433", "HOOKSEAL_LISTEN_URL") == (
        settings.listen_database.url,
        settings.listen_database.address,
        settings.listen_database.variable,
    )
    assert "hunter2" not in repr(settings)
    [unknown] = problems(environment(HOOKSEAL_LISTEN_URL=f"{url}?colour=hunter2"))
    assert unknown.startswith("HOOKSEAL_LISTEN_URL has the parameter colour, which PostgreSQL does not know")
    assert "hunter2" not in unknown
    assert ["HOOKSEAL_LISTEN_URL must be a url of the form of DATABASE_URL"] == problems(
        environment(HOOKSEAL_LISTEN_URL="mysql://x")
    )


@pytest.mark.parametrize(("part", "scheme"), [("database", "postgresql"), ("redis", "redis")])
def test_a_replaced_file_gives_the_next_connection_its_login(part: str, scheme: str, tmp_path: Path) -> None:
    """A new user and password count at once; a file of another server, a malformed and a missing one do not."""
    name = f"{part.upper()}_URL"
    file = tmp_path / "url"
    file.write_text(f"{scheme}://one:first@server.example:6000/0\n")
    server = getattr(load(environment(**{name: None, f"{name}_FILE": str(file)})), part)

    def written(text: str) -> str:
        file.write_text(text)
        return str(server.current_url())

    second = f"{scheme}://two:second@server.example:6000/0"
    assert f"{scheme}://one:first@server.example:6000/0" == server.current_url() == server.url
    assert [second] * 3 == [written(second), written(second.replace("server.", "other.")), written("two:second")]
    in_query = f"{scheme}://server.example:6000/0?{'user' if part == 'database' else 'username'}=two&password=third"
    assert in_query == written(in_query)
    assert second == written(second)
    file.unlink()
    assert second == server.current_url()
    assert "second" not in repr(server)
