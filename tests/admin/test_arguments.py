"""The error for an argument of the wrong type says which type is wanted."""

from datetime import datetime
from typing import Any

import pytest

from hookseal.admin import arguments
from hookseal.errors import Malformed


@pytest.mark.parametrize(
    ("check", "wrong", "message"),
    [
        (arguments.tenant_id, 5, "tenant_id must be of the type str, not int"),
        (lambda value: arguments.flag(value, "force"), "yes", "force must be of the type bool, not str"),
        (
            lambda value: arguments.moment(value, "since"),
            "2026-01-31",
            "since must be of the type datetime with a time zone, not str",
        ),
        (
            lambda value: arguments.moment(value, "since"),
            datetime(2026, 1, 31),  # noqa: DTZ001 -- the point of the test
            "since must have a time zone: give for example datetime.now(UTC)",
        ),
        (arguments.headers, [], "headers must be of the type Mapping, not list"),
        (lambda value: arguments.encoded(value, "ca"), 5, "ca must be of the type str | bytes, not int"),
        (lambda value: arguments.whole(value, "limit"), "5", "limit must be a whole number"),
        (
            lambda value: arguments.whole(value, "rate"),
            "20/s",
            "rate must be a whole number of requests a second, as in",
        ),
        (
            lambda value: arguments.whole(value, "retry_schedule"),
            *("5s", "retry_schedule must be a whole number of seconds for each wait, as in [5, 300]"),
        ),
        (arguments.states, "failed", "states must be a list, not of the type str"),
        (arguments.key_id, 5, "key_id must be of the type str, not int"),
        (arguments.key_id, "0123456789ABCDEF", "a master-key id has 16 lowercase hex digits"),
        (arguments.key_id, "0123456789abcde", "a master-key id has 16 lowercase hex digits"),
        (arguments.key_id, "0123456789abcdef\n", "a master-key id has 16 lowercase hex digits"),
        (arguments.audited_tenant, "_other", "tenant must be 1 to 63 characters"),
        (arguments.heads, "{}", "the file must hold what `hookseal audit heads --json` or"),
    ],
)
def test_the_wanted_type_is_named(check: Any, wrong: Any, message: str) -> None:
    """The message names the argument, what it must be, and what it is."""
    with pytest.raises(Malformed) as caught:
        check(wrong)
    assert str(caught.value).startswith(message)
