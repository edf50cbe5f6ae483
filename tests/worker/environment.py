"""The settings of a worker on the databases of a test."""

from hookseal.config.load import load
from hookseal.config.settings import Settings
from tests.doubles.stored import MASTER_KEY_TEXT


def environment(database_url: str, redis_url: str, **changes: str) -> dict[str, str]:
    """Return the variables of a worker that may connect to this machine; an empty change removes a variable."""
    variables = {
        "HOOKSEAL_ENV": "development",
        "HOOKSEAL_ALLOW_HTTP": "true",
        "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
        "HOOKSEAL_HEALTH_PORT": "0",
        "HOOKSEAL_SWEEP_SECONDS": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    } | changes
    return {name: value for name, value in variables.items() if value}


def settings(database_url: str, redis_url: str, **changes: str) -> Settings:
    return load(environment(database_url, redis_url, **changes))
