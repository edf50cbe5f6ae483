"""The settings, where they come from, and the problems with them."""

import asyncio
import base64
import ipaddress
import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.config import names
from hookseal.config.load import EVERYTHING, NOTHING, load, split_environment
from hookseal.config.names import FROM_FILE, KNOWN
from hookseal.config.settings import Environment, Part
from hookseal.config.source import FileText, is_debugging, is_exposed, read_environment, read_file
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
_PROGRAM = """
import ctypes, resource
from hookseal.config.load import harden_process
harden_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""
_FILES = """
import resource
from hookseal.config.load import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 90))
print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


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


@pytest.mark.req("SEC-10", "SEC-11", "DEL-16", "DEL-22")
def test_periods_have_their_defaults_and_can_be_set() -> None:
    """An overlap lasts a day, retired material 90 days, a wait for a disabled endpoint 7 days, and an end 30 days."""
    days = {"SECRETS_RETIRED_RETENTION_DAYS": "1", "HOOKSEAL_HELD_DAYS": "30", "HOOKSEAL_RETENTION_DAYS": "3650"}
    seconds = {"SECRETS_ROTATION_OVERLAP_SECONDS": "604800", "HOOKSEAL_DISABLE_AFTER_SECONDS": "3600"}
    found = [
        (
            *(each.secrets.rotation_overlap_seconds, each.secrets.retired_retention_days, each.worker.held_days),
            *(each.worker.retention_days, each.worker.disable_after_seconds),
        )
        for each in (load(environment()), load(environment(**days, **seconds)))
    ]
    assert [(86_400, 90, 7, 30, 5 * 86_400), (604_800, 1, 30, 3_650, 3_600)] == found


@pytest.mark.parametrize(
    ("limit", "peak", "expected"),
    [(None, None, (32, 256)), ("4", None, (4, 4)), ("4", "64", (4, 64)), (None, "64", (32, 64))],
)
def test_a_limit_that_is_set_does_not_grow_unless_its_peak_is_set(
    limit: str | None, peak: str | None, expected: tuple[int, int]
) -> None:
    worker = load(environment(HOOKSEAL_ENDPOINT_CONCURRENCY=limit, HOOKSEAL_ENDPOINT_CONCURRENCY_PEAK=peak)).worker
    assert expected == (worker.endpoint_concurrency, worker.endpoint_concurrency_peak)


@pytest.mark.parametrize(
    ("text", "expected"), [(None, 1), ("all", 1), ("NONE", 0), ("sampled:100", 100), ("Sampled:1000000", 1_000_000)]
)
def test_successes_are_logged_as_set(text: str | None, expected: int) -> None:
    assert expected == load(environment(HOOKSEAL_LOG_SUCCESS=text)).log.successes_per_line


def test_a_set_value_has_its_type() -> None:
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
        )
    )
    assert CacheLimits(ttl_seconds=0, max_entries=1, max_bytes=131_072) == settings.secrets.cache
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
        ({"HOOKSEAL_HELD_DAYS": "31"}, "HOOKSEAL_HELD_DAYS must be a whole number from 1 to 30"),
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
        ({"HOOKSEAL_HEALTH_HOST": "a..b"}, "HOOKSEAL_HEALTH_HOST must be"),
        ({"HOOKSEAL_API_HOST": "a" * 64}, "HOOKSEAL_API_HOST must be"),
        ({"HOOKSEAL_QUEUE": "a b"}, "HOOKSEAL_QUEUE must be"),
        ({"HOOKSEAL_QUEUE": "deliveries\n"}, "HOOKSEAL_QUEUE must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.1/8"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.0/8@_system"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_EGRESS_ALLOW": "10.0.0.0/8,"}, "HOOKSEAL_EGRESS_ALLOW must be"),
        ({"HOOKSEAL_LOG_LEVEL": "loud"}, "HOOKSEAL_LOG_LEVEL must be"),
        ({"HOOKSEAL_HEALTH_URL": "127.0.0.1:8080"}, "HOOKSEAL_HEALTH_URL must be"),
        ({"HOOKSEAL_LOG_FORMAT": "text"}, "HOOKSEAL_LOG_FORMAT must be"),
        ({"HOOKSEAL_LOG_SUCCESS": "some"}, "HOOKSEAL_LOG_SUCCESS must be all, none, or sampled:N"),
        ({"HOOKSEAL_LOG_SUCCESS": "sampled:0"}, "HOOKSEAL_LOG_SUCCESS must be"),
        ({"HOOKSEAL_LISTEN": "1"}, "HOOKSEAL_LISTEN must be true or false"),
        ({"HOOKSEAL_RETENTION_DAYS": "0"}, "HOOKSEAL_RETENTION_DAYS must be a whole number from 1 to 3650"),
        ({"HOOKSEAL_ENDPOINT_CONCURRENCY": "0"}, "HOOKSEAL_ENDPOINT_CONCURRENCY must be a whole number from 1 to"),
        ({"HOOKSEAL_CONCURENCY": "5"}, "HOOKSEAL_CONCURENCY is not a setting of hookseal, did you mean HOOKSEAL_CONC"),
        ({"HOOKSEAL_UNKNOWN_SETTINGS": "allow"}, "HOOKSEAL_UNKNOWN_SETTINGS must be refuse or warn, in any case"),
        ({"HOOKSEAL_UNKNOWN_SETTINGS": "warn", "HOOKSEAL_LEASE_SECONDS": "x"}, "HOOKSEAL_LEASE_SECONDS must be"),
        ({"HOOKSEAL_SWEEP_SECONDS": "500ms"}, "HOOKSEAL_SWEEP_SECONDS must be a whole number from 1 to 300, or a dura"),
        ({"HOOKSEAL_SWEEP_SECONDS": "6m"}, "HOOKSEAL_SWEEP_SECONDS must be"),
        ({"HOOKSEAL_HELD_DAYS": "36h"}, "HOOKSEAL_HELD_DAYS must be a whole number from 1 to 30, or a duration as 7d"),
        ({"HOOKSEAL_CONCURRENCY": "5s"}, "HOOKSEAL_CONCURRENCY must be"),
    ],
)
def test_each_problem_names_its_variable(changes: dict[str, str | None], expected: str) -> None:
    found = problems(environment(**changes))
    assert [True] == [text.startswith(expected) for text in found], found


@pytest.mark.req("OPS-13")
def test_names_that_are_no_settings_are_ignored_on_request() -> None:
    """Only their names are kept; a misspelled setting is one of them, and what Kubernetes injects is none."""
    later = {"HOOKSEAL_LATER": CANARY, "SECRETS_LATER_FILE": CANARY, "HOOKSEAL_CONCURENCY": "5", "HOOKSEAL_\x1b": "x"}
    injected = {"HOOKSEAL_SERVICE_HOST": "10.0.0.1"}
    assert 4 == len(problems(environment(**later, **injected)))
    assert 4 == len(problems(environment(HOOKSEAL_UNKNOWN_SETTINGS="refuse", **later, **injected)))

    settings = load(environment(HOOKSEAL_UNKNOWN_SETTINGS="Warn", **later, **injected))
    assert ("HOOKSEAL_\\x1b", "HOOKSEAL_CONCURENCY", "HOOKSEAL_LATER", "SECRETS_LATER_FILE") == settings.unknown
    assert 500 == settings.worker.concurrency
    assert CANARY not in repr(settings)


def test_an_unneeded_empty_variable_is_not_required() -> None:
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
        ("postgresql://h/d?sslmod=x", "HOOKSEAL_DATABASE_URL has an unknown parameter, number 1 behind the "),
        ("postgresql://u:p/w@h/d", "HOOKSEAL_DATABASE_URL has an '@' after the first '/' or '?'"),
    ],
)
def test_a_problem_names_the_variable_with_the_url(url: str, message: str) -> None:
    (found,) = problems(environment(DATABASE_URL=None, HOOKSEAL_DATABASE_URL=url))
    assert found.startswith(message)


def test_all_problems_are_reported_together() -> None:
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
    needs = EVERYTHING - {part}
    assert [] == problems(environment(**{part.value: None, "SECRETS_MASTER_KEY": KEY}), needs=needs)
    assert [True] == [text.startswith(part) for text in problems(environment(**{part.value: "bad"}), needs=needs)]
    settings = load(environment(), needs=needs)
    parts = {Part.DATABASE: "database", Part.REDIS: "redis", Part.SECRETS: "secrets"}
    with pytest.raises(Defect, match=part):
        getattr(settings, parts[part])


def test_an_empty_environment_suffices_if_nothing_is_needed() -> None:
    assert Environment.PRODUCTION is load({}, needs=NOTHING).environment


def test_dev_works_outside_production_only() -> None:
    settings = load(environment(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=None, HOOKSEAL_ENV="test"))
    assert (Provider.DEV, None) == (settings.secrets.provider, settings.secrets.master_key)


@pytest.mark.req("SEC-15", part="settings")
def test_no_repr_shows_a_password_or_key() -> None:
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
    assert unknown.startswith("HOOKSEAL_LISTEN_URL has an unknown parameter, number 1 behind the")
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOKSEAL_SERVICE_HOST", "10.0.0.1"),
        ("HOOKSEAL_SERVICE_HOST", "fd00::1"),
        ("HOOKSEAL_SERVICE_PORT", "8080"),
        ("HOOKSEAL_SERVICE_PORT_HTTP_METRICS", "8080"),
        ("HOOKSEAL_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKSEAL_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOOKSEAL_PORT_8080_TCP_PROTO", "tcp"),
        ("HOOKSEAL_PORT_8080_TCP_PORT", "8080"),
        ("HOOKSEAL_PORT_53_UDP_ADDR", "10.0.0.1"),
        ("SECRETS_WORKER_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_an_injected_name_is_recognised(name: str, value: str) -> None:
    """The name of a service with a value of that kind looks injected, and is not near a known name."""
    assert names.looks_injected(name, value)
    assert not names.is_near_known(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOKSEAL_PORT", "8080"),
        ("HOOKSEAL_SERVICE_HOST", "example.com"),
        ("HOOKSEAL_SERVICE_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKSEAL_PORT_8080_TCP_PROTO", "http"),
        ("HOOKSEAL_MAX_THREADS", "5"),
        ("HOOKSEAL_HEALTH_PORT", "8080"),
    ],
)
def test_name_or_value_alone_is_not_injected(name: str, value: str) -> None:
    assert not names.looks_injected(name, value)


def test_two_wrong_characters_are_a_typing_error() -> None:
    assert names.is_near_known("HOOKSEAL_HEALTHY_PORTS")
    assert not names.is_near_known("HOOKSEAL_WEALTHY_PORTS")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HOOKSEAL_CONCURENCY", "HOOKSEAL_CONCURRENCY"),
        ("HOOKSEAL_DATABASE_ULR", "HOOKSEAL_DATABASE_URL"),
        ("HOOKSEAL_REDISURL", "HOOKSEAL_REDIS_URL"),
        ("HOOKSEAL_MASTER_KEY", "SECRETS_MASTER_KEY"),
        ("SECRETS_MASTERKEY_FILE", "SECRETS_MASTER_KEY_FILE"),
        ("HOOKSEAL_LOGLEVEL", "HOOKSEAL_LOG_LEVEL"),
    ],
)
def test_a_similar_name_is_suggested(name: str, meant: str) -> None:
    assert f", did you mean {meant}?" == names.did_you_mean(name)


def test_an_unsimilar_name_has_no_suggestion() -> None:
    assert "" == names.did_you_mean("HOOKSEAL_COLOUR")


def test_known_names_and_prefixes_are_claimed() -> None:
    assert all(map(names.is_for_hookseal, ("DATABASE_URL", "REDIS_URL_FILE", "HOOKSEAL_X", "SECRETS_X")))
    assert not any(
        map(
            names.is_for_hookseal,
            ("PATH", "HOOKSEAL_TEST_DATABASE_URL", "AWS_REGION", "BAO_MOUNT", "VAULT_ADDR", "HOOKSEAL"),
        )
    )


def test_variables_and_their_files_are_read() -> None:
    source = read_environment(
        {"PATH": "/bin", "HOOKSEAL_ENV": "test", "REDIS_URL_FILE": "/a", "HOOKSEAL_TEST_REDIS_URL": "x"},
        read_file=lambda path: FileText(text=f"text of {path}", exposed=True),
    )
    assert {"HOOKSEAL_ENV": "test", "REDIS_URL": "text of /a"} == source.values
    assert frozenset({"REDIS_URL"}) == source.exposed
    assert () == source.problems
    assert "REDIS_URL" in source.present


def test_a_variable_and_its_file_are_refused() -> None:
    source = read_environment({"REDIS_URL": "redis://h", "REDIS_URL_FILE": "/nowhere"})
    assert ("REDIS_URL and REDIS_URL_FILE are both set: remove one",) == source.problems


def test_overridden_names_are_not_read() -> None:
    """Overridden plain names are neither read nor checked, whether they have a value or a file."""
    files = {"HOOKSEAL_REDIS_URL_FILE": "/ours", "REDIS_URL": "", "REDIS_URL_FILE": "/nowhere"}
    source = read_environment(
        {"HOOKSEAL_DATABASE_URL": "ours", "DATABASE_URL": "mysql://an.app"} | files,
        read_file=lambda path: FileText(text=f"text of {path}", exposed=False),
    )
    assert {"DATABASE_URL": "ours", "REDIS_URL": "text of /ours"} == source.values
    assert {"DATABASE_URL": "HOOKSEAL_DATABASE_URL", "REDIS_URL": "HOOKSEAL_REDIS_URL"} == source.written_as
    assert ((), True) == (source.problems, {"DATABASE_URL", "REDIS_URL"} <= source.present)


def test_an_empty_preferred_name_has_no_fallback() -> None:
    """An empty preferred variable does not fall back to the plain one; two forms of one are refused by their names."""
    both = {"HOOKSEAL_REDIS_URL": "redis://h", "HOOKSEAL_REDIS_URL_FILE": "/a"}
    source = read_environment({"HOOKSEAL_DATABASE_URL": "", "DATABASE_URL": "postgresql://h/d"} | both)
    assert (
        "HOOKSEAL_REDIS_URL and HOOKSEAL_REDIS_URL_FILE are both set: remove one",
        "HOOKSEAL_DATABASE_URL is empty: give it a value or remove it",
    ) == source.problems


def test_injected_names_are_ignored() -> None:
    source = read_environment({"HOOKSEAL_SERVICE_HOST": "10.0.0.1", "HOOKSEAL_PORT": "tcp://10.0.0.1:80"})
    assert ({}, ()) == (source.values, source.problems)


def test_control_characters_in_a_name_are_escaped() -> None:
    (problem,) = read_environment({"HOOKSEAL_\x1b[2J": "x"}).problems
    assert problem.startswith(r"HOOKSEAL_\x1b[2J is not a setting of hookseal")


@pytest.mark.parametrize(
    ("content", "text"), [(b"a", "a"), (b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"", "")]
)
def test_one_newline_is_removed(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert text == read_file(str(file)).text


@pytest.mark.parametrize("content", [b"\xff", b"a" * 16_385])
def test_a_file_that_is_not_text_is_not_shown(tmp_path: Path, content: bytes) -> None:
    """A file that is not UTF-8 or too long cannot be read, and its content is not shown."""
    file = tmp_path / "file"
    file.write_bytes(content)
    source = read_environment({"DATABASE_URL_FILE": str(file)})
    assert [True] == [text.startswith("DATABASE_URL_FILE names a file that cannot be read") for text in source.problems]


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("\n")
    assert ("DATABASE_URL_FILE names an empty file: write the value into it",) == read_environment(
        {"DATABASE_URL_FILE": str(file)}
    ).problems


@pytest.mark.parametrize(("mode", "exposed"), [(0o400, False), (0o600, False), (0o440, True), (0o604, True)])
def test_an_own_file_is_exposed_if_others_may_read_it(tmp_path: Path, mode: int, *, exposed: bool) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    file.chmod(mode)
    assert exposed == read_file(str(file)).exposed


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "exposed"),
    [
        (0o440, 0, 1000, False),
        (0o444, 0, 1000, True),
        (0o440, 1000, 1000, True),
        (0o440, 1000, 0, True),
        (0o400, 0, 0, False),
    ],
)
def test_a_mounted_file_may_be_readable_by_its_group(mode: int, owner: int, reader: int, *, exposed: bool) -> None:
    assert exposed == is_exposed(mode, owner=owner, reader=reader)


def test_the_log_level_is_known_without_settings() -> None:
    assert is_debugging({"HOOKSEAL_LOG_LEVEL": "debug"})
    assert is_debugging({"HOOKSEAL_LOG_LEVEL": "DEBUG"})
    assert not is_debugging({"HOOKSEAL_LOG_LEVEL": "info"})
    assert not is_debugging()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_GET_DUMPABLE is Linux's")
async def test_a_hardened_process_cannot_be_dumped() -> None:
    """The kernel reports the process as not dumpable, and core files cannot be enabled again."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (0, b"0 (0, 0)\n") == (process.returncode, out)


async def test_the_file_limit_is_raised() -> None:
    """The process may open as many files as the system permits."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _FILES, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (0, b"90 (90, 90)\n") == (process.returncode, out)


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


@pytest.mark.req("UX-02")
def test_a_duration_has_a_unit_or_that_of_its_name() -> None:
    loaded = load(
        environment(
            SECRETS_CACHE_TTL_SECONDS="5m",
            SECRETS_ROTATION_OVERLAP_SECONDS="24h",
            SECRETS_RETIRED_RETENTION_DAYS="30d",
            HOOKSEAL_SWEEP_SECONDS="10s",
            HOOKSEAL_LEASE_SECONDS="1m",
            HOOKSEAL_DRAIN_SECONDS="30000ms",
            HOOKSEAL_HELD_DAYS="48h",
            HOOKSEAL_DISABLE_AFTER_SECONDS="6d",
            HOOKSEAL_RETENTION_DAYS="7",
        )
    )
    worker, secrets = loaded.worker, loaded.secrets
    assert (10, 60, 30, 2, 518_400, 7) == (
        *(worker.sweep_seconds, worker.lease_seconds, worker.drain_seconds),
        *(worker.held_days, worker.disable_after_seconds, worker.retention_days),
    )
    assert (300, 86_400, 30) == (
        secrets.cache.ttl_seconds, secrets.rotation_overlap_seconds, secrets.retired_retention_days,
    )  # fmt: skip


@pytest.mark.req("UX-02")
def test_production_logs_json_unless_it_is_told() -> None:
    styles = {
        (where, asked): load(
            environment(HOOKSEAL_ENV=where, **({} if asked is None else {"HOOKSEAL_LOG_FORMAT": asked}))
        ).log.style
        for where in ("production", "development")
        for asked in (None, "auto", "json", "Console")
    }
    assert ["json", "json", "json", "console", "auto", "auto", "json", "console"] == list(styles.values())
