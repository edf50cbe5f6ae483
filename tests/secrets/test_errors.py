"""The class of an error says whether a retry can help."""

import pytest

from hookseal import errors
from hookseal.errors import CannotSign, SecretError, SecretUnavailable, Unavailable

pytestmark = pytest.mark.req("SEC-07")

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, CannotSign) and value is not CannotSign
]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_either_definitive_or_transient(error: type[CannotSign]) -> None:
    """Each class is either definitive (`SecretError`) or transient (`Unavailable`), and each is a `CannotSign`."""
    assert issubclass(error, SecretError) != issubclass(error, Unavailable)
    assert issubclass(error, CannotSign)


def test_unavailable_has_the_exit_code_of_an_outage() -> None:
    """The transient class has the exit code of an unavailable dependency."""
    assert 69 == SecretUnavailable().exit_code


def test_every_error_has_its_own_code_and_message() -> None:
    """Each class has a code and a default message of its own."""
    assert len(ALL) == len({error.code for error in ALL})
    assert len(ALL) == len({str(error()) for error in ALL})
