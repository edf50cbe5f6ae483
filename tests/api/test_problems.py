"""The answer to a client when something goes wrong: a status, a code, and nothing that is only for an operator."""

import msgspec
import pytest

from hookseal import errors
from hookseal.api.problems import is_for_the_operator, no_call, of_error, stored_text
from hookseal.dispatcher.core.policy import await_other_worker, await_repair
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
    OutcomeKept,
    Refused,
    SecretDenied,
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
        (ConfigError("x", field="schema"), None, 503, "upgraded"),
        (SecretTampered("x"), None, 409, "secret_tampered"),
        (SecretDenied("x"), None, 403, "secret_denied"),
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

    assert repeated == {
        kind for kind in kinds if issubclass(kind, able) or kind in {Defect, HooksealError, OutcomeKept}
    } | {kind for kind in kinds if issubclass(kind, errors.VerificationError)}


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, None),
        ("the receiver answered 503", "the receiver answered 503"),
        ("set HOOKSEAL_ALLOW_HTTP=true", "the operator of this server must act"),
        (await_repair(0.5).reason, "this server could not send it yet: it tries again"),
        (f"it was held, then {await_repair(0.5).reason}", "this server could not send it yet: it tries again"),
        (await_other_worker("run more", 0.5).reason, "this server could not send it yet: it tries again"),
    ],
)
def test_a_stored_text_has_no_words_of_an_operator(text: str | None, shown: str | None) -> None:
    assert shown == stored_text(text)


def test_a_message_is_given_the_names_of_the_request() -> None:
    """Whatever its status is."""
    for error, loc in ((Malformed("x", field="f"), BODY), (Malformed("x"), None), (Conflict("x"), None)):
        assert b"x of f" in of_error(error, loc, names=lambda text, _field: f"{text} of f").body()


def test_a_path_that_nothing_serves_is_told_from_what_is_absent() -> None:
    slash, plain = no_call("/api/v1/app/"), no_call("/")

    assert (404, "no_such_call", "no call has this path: leave out the slash at its end") == (
        *(slash.status, slash.code, slash.detail),
    )
    assert "no call has this path" == plain.detail


def test_the_advice_of_an_error_reaches_no_client() -> None:
    problem = of_error(Conflict("an overlap is running", advice="wait, or use --force"), None)

    assert {"code": "conflict", "detail": "an overlap is running"} == msgspec.json.decode(problem.body())


def test_a_detail_is_never_long() -> None:
    assert 500 == len(of_error(Conflict("x" * 10_000), None).detail)
