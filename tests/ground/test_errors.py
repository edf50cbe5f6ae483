"""The texts of errors: one for an operator of hookseal, and one for a customer of the product."""

import pytest

import hookseal
from hookseal import errors
from hookseal.errors import ConfigError, Conflict, Defect, HooksealError, Malformed, NotFound, Refused, with_advice

pytestmark = pytest.mark.req("UX-03")

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HooksealError)]


def test_the_errors_are_an_attribute_of_the_package() -> None:
    assert errors is hookseal.errors


@pytest.mark.parametrize("kind", [Malformed, NotFound, Conflict])
def test_a_customer_reads_what_was_wrong_with_the_request(kind: type[HooksealError]) -> None:
    error = kind("the url is taken", field="url", advice="see `hookseal endpoint list`")

    assert "the url is taken" == error.public
    assert "the url is taken: see `hookseal endpoint list`" == with_advice(error)


@pytest.mark.parametrize(
    "text",
    [
        "run `hookseal producer grant`",
        "add another endpoint with --ordered",
        "raise HOOKSEAL_DRAIN_SECONDS first",
        "the command hookseal worker must run",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_customer_reads_no_words_of_an_operator(kind: type[HooksealError], text: str) -> None:
    """Whatever the error is: it has a general text in place of its own."""
    public = kind(text, field="url").public

    assert public == kind.general
    assert public == errors.for_a_customer(public, "")


def test_a_refusal_is_for_a_customer_if_it_names_their_argument() -> None:
    """What names none, or names a setting, is about the rights or the settings of the process."""
    assert "the url may not be used" == Refused("the url may not be used", field="url").public
    assert Refused.general == Refused("PostgreSQL at 10.0.0.1 does not let this role do it").public
    assert Refused.general == Refused("its key refuses", field="SECRETS_KMS").public


def test_an_error_may_bring_a_text_of_its_own_for_a_customer() -> None:
    error = Refused("nothing can be replayed: 3 deliveries of disabled endpoints", public="nothing can be replayed")

    assert "nothing can be replayed" == error.public


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.about_the_request])
def test_a_customer_reads_nothing_of_a_failure_inside(kind: type[HooksealError]) -> None:
    assert kind.general == kind("10.0.0.1 refuses the password of jane").public


def test_the_general_text_says_whether_to_try_again() -> None:
    assert "this cannot be done at the moment: try again" == errors.InDoubt().public == errors.Exhausted().public
    assert "a stored secret cannot be used: the operator of this server must act" == errors.KeyRetired().public
    assert "this cannot be done at the moment: try again" == errors.SecretUnavailable().public
    assert "internal error" == Defect().public
    assert "the settings of this server do not allow it: ask its operator" == ConfigError("x").public
