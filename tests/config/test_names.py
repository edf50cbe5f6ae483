"""Known names, typing errors, and names that Kubernetes injects are distinguished."""

import pytest

from hookseal.config import names


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
    """Neither the form of the name alone nor that of the value is enough."""
    assert not names.looks_injected(name, value)


def test_two_wrong_characters_are_a_typing_error() -> None:
    """A name of which two characters are wrong is a typing error, whatever the value is; with three it is not."""
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
    """For a name similar to a known one, even under another prefix, that one is suggested."""
    assert f", did you mean {meant}?" == names.did_you_mean(name)


def test_an_unsimilar_name_has_no_suggestion() -> None:
    """Nothing is suggested for a name that is similar to no known one."""
    assert "" == names.did_you_mean("HOOKSEAL_COLOUR")


def test_known_names_and_prefixes_are_claimed() -> None:
    """Known names and all with the prefixes are for hookseal, except those of its tests and of other programs."""
    assert all(map(names.is_for_hookseal, ("DATABASE_URL", "REDIS_URL_FILE", "HOOKSEAL_X", "SECRETS_X")))
    assert not any(
        map(
            names.is_for_hookseal,
            ("PATH", "HOOKSEAL_TEST_DATABASE_URL", "AWS_REGION", "BAO_MOUNT", "VAULT_ADDR", "HOOKSEAL"),
        )
    )
