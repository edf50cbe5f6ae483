"""What an answer of OpenBao means."""

import json

import pytest

from hookseal.errors import Cause, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from hookseal.secrets.openbao.client import Absence, OpenBaoNotFound, OpenBaoRefused, OpenBaoUnavailable, content

ADDRESS = "https://bao.example:8200"
CANARY = "canary-in-an-answer"


def meaning(status: int, body: bytes) -> object:
    """Return the content, or the error."""
    try:
        return content(status, body, address=ADDRESS, path="secret/data/x")
    except (SecretError, SecretUnavailable) as error:
        return error


@pytest.mark.parametrize(
    ("status", "body", "expected"), [(200, b'{"data": {"a": 1}}', {"data": {"a": 1}}), (204, b"", {}), (200, b"{}", {})]
)
def test_a_successful_answer_is_its_object(status: int, body: bytes, expected: object) -> None:
    """A successful answer is its JSON object, or nothing."""
    assert expected == meaning(status, body)


@pytest.mark.parametrize(
    ("status", "reasons", "absence"),
    [
        (503, ["Vault is sealed"], Absence.SEALED),
        (500, ["local node not active but active cluster node not found"], Absence.STANDBY),
        (307, [], Absence.STANDBY),
        (429, [], Absence.BUSY),
        (412, ["required index state not present"], Absence.BEHIND),
        (408, [], Absence.FAILING),
        (500, [CANARY], Absence.FAILING),
        (502, [], Absence.FAILING),
    ],
)
def test_a_transient_answer_is_unavailable_and_names_the_remedy(
    status: int, reasons: list[str], absence: Absence
) -> None:
    """A transient answer is distinguished from a final one, and says what to do."""
    error = meaning(status, json.dumps({"errors": reasons}).encode())

    assert isinstance(error, OpenBaoUnavailable)
    assert absence is error.absence
    assert absence.format(address=ADDRESS) == str(error)
    assert ADDRESS in str(error)


@pytest.mark.parametrize(("status", "kind"), [(401, SecretDenied), (403, SecretDenied), (404, SecretNotFound)])
def test_a_lasting_refusal_is_not_transient(status: int, kind: type[SecretError]) -> None:
    """A refusal that lasts until an operator acts is not transient."""
    error = meaning(status, json.dumps({"errors": [CANARY]}).encode())

    assert isinstance(error, kind)
    assert CANARY not in str(error)


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(("method", "right"), [("GET", "read"), ("POST", "create, update"), ("DELETE", "delete")])
def test_a_denial_names_the_right(method: str, right: str) -> None:
    """A denial names the path and the capability that the policy of the token lacks."""
    with pytest.raises(SecretDenied, match=rf"to secret/data/x: give its policy that right \({right}\)"):
        content(403, b'{"errors": []}', address=ADDRESS, path="secret/data/x", method=method)


def test_the_reasons_of_a_refusal_are_not_in_the_message() -> None:
    """The server's reasons of a refused request are for comparing: they are not in the message."""
    error = meaning(400, json.dumps({"errors": [CANARY]}).encode())

    assert isinstance(error, OpenBaoRefused)
    assert (CANARY,) == error.reasons
    assert CANARY not in str(error)


def test_a_404_says_that_the_version_was_deleted() -> None:
    """A 404 keeps what it says about a deleted version."""
    error = meaning(404, b'{"data": {"metadata": {"version": 3}}}')

    assert isinstance(error, OpenBaoNotFound)
    assert {"metadata": {"version": 3}} == error.data


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429])
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"\xff"])
def test_a_page_of_another_server_is_no_answer(status: int, body: bytes) -> None:
    """A page of something else between is not an answer, whatever its status, and the error says so."""
    error = meaning(status, body)

    assert isinstance(error, OpenBaoUnavailable)
    assert f"what answers at {ADDRESS} is not OpenBao" in str(error)
    assert Cause.FOREIGN is error.cause


@pytest.mark.req("SEC-18")
@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"<html>", b"no healthy upstream"])
def test_a_load_balancer_without_a_server_is_not_another_server(status: int, body: bytes) -> None:
    """What a load balancer says while OpenBao is down or sealed does not send the operator to BAO_ADDR."""
    error = meaning(status, body)

    assert isinstance(error, OpenBaoUnavailable)
    assert f"what is before OpenBao at {ADDRESS} answers {status}: OpenBao is down or sealed" in str(error)
    assert Cause.FAILING is error.cause


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(
    ("status", "reason", "cause"),
    [
        (503, "Vault is sealed", Cause.SEALED),
        (429, "rate limit quota exceeded", Cause.THROTTLED),
        (500, "internal", Cause.FAILING),
    ],
)
def test_the_cause_of_an_absence_is_named(status: int, reason: str, cause: Cause) -> None:
    """What `/readyz` says of a server that answers is not that it is silent."""
    error = meaning(status, json.dumps({"errors": [reason]}).encode())

    assert isinstance(error, OpenBaoUnavailable)
    assert cause is error.cause
