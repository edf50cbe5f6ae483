"""The answer to a client when something goes wrong: a status, a code, and nothing that is only for an operator."""

import msgspec
import pytest

from hookseal import errors
from hookseal.api.problems import is_for_the_operator, of_error
from hookseal.errors import (
    Busy,
    ConfigError,
    Conflict,
    Defect,
    Exhausted,
    HooksealError,
    InDoubt,
    LocalFailure,
    Malformed,
    NotFound,
    Refused,
    SecretTampered,
    SecretUnavailable,
    Unavailable,
)

BODY = ["body", "url"]


@pytest.mark.parametrize(
    ("error", "loc", "status", "code"),
    [
        (Malformed("x"), BODY, 422, None),
        (Malformed("x"), None, 422, None),
        (Malformed("x"), ["path", "endpointId"], 404, "not_found"),
        (Refused("x"), BODY, 422, None),
        (Refused("x"), None, 403, "refused"),
        (Refused("x"), ["path", "endpointId"], 403, "refused"),
        (NotFound("x"), None, 404, "not_found"),
        (NotFound("x"), BODY, 404, "not_found"),
        (Conflict("x"), None, 409, "conflict"),
        (ConfigError("x", field="SECRETS_MASTER_KEY"), None, 403, "no_master_key"),
        (ConfigError("x"), None, 403, "configuration"),
        (SecretTampered("x"), None, 409, "secret_tampered"),
        (SecretUnavailable("x"), None, 503, "secret_unavailable"),
        (Unavailable("x"), None, 503, "unavailable"),
        (Busy("x"), BODY, 503, "busy"),
        (InDoubt("x"), None, 503, "in_doubt"),
        (Exhausted("x"), None, 503, "exhausted"),
        (LocalFailure("x"), None, 503, "local_failure"),
        (Defect("x"), None, 500, "internal"),
        (KeyError("x"), None, 500, "internal"),
    ],
)
def test_each_error_has_its_status(error: Exception, loc: list[str] | None, status: int, code: str | None) -> None:
    problem = of_error(error, loc)
    answer = msgspec.json.decode(problem.body())

    assert (status, code) == (problem.status, answer.get("code"))
    assert (status == 422) == isinstance(answer["detail"], list)


def test_what_only_an_operator_can_correct_is_for_the_operator() -> None:
    """The settings of the process, its rights in PostgreSQL, and stored secrets; what a client sent wrong is not."""
    errors_of_it = [(ConfigError("x"), None), (Refused("x"), None), (SecretTampered("x"), None)]
    others = [(Refused("x"), BODY), (Malformed("x"), None), (Conflict("x"), None), (NotFound("x"), None)]

    assert [True] * 3 == [is_for_the_operator(*each) for each in errors_of_it]
    assert [False] * 4 == [is_for_the_operator(*each) for each in others]


def test_only_a_server_that_cannot_answers_with_a_status_that_clients_repeat() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HooksealError)]
    repeated = {kind for kind in kinds if of_error(kind("x"), None).status >= 500}
    able = (Unavailable, Exhausted, LocalFailure)

    assert repeated == {kind for kind in kinds if issubclass(kind, able) or kind in {Defect, HooksealError}} | {
        kind for kind in kinds if issubclass(kind, errors.VerificationError)
    }


@pytest.mark.parametrize(
    "text",
    [
        "run `hookseal producer grant --role x`",
        "an endpoint is ordered: add another endpoint with --ordered",
        "time-out must be at most 5 ms, 5 s less than HOOKSEAL_DRAIN_SECONDS: raise that first",
        "the command hookseal worker must run",
    ],
)
@pytest.mark.parametrize("error", [Malformed, Refused, Conflict])
@pytest.mark.parametrize("loc", [BODY, None])
def test_words_of_an_operator_reach_no_client(text: str, error: type[HooksealError], loc: list[str] | None) -> None:
    body = of_error(error(text, advice="hookseal endpoint update --help"), loc).body()

    assert b"hookseal" not in body.lower()
    assert b"--" not in body


def test_the_advice_of_an_error_reaches_no_client() -> None:
    problem = of_error(Conflict("an overlap is running", advice="wait, or use --force"), None)

    assert {"code": "conflict", "detail": "an overlap is running"} == msgspec.json.decode(problem.body())


def test_a_detail_is_never_long() -> None:
    assert 500 == len(of_error(Conflict("x" * 10_000), None).detail)
