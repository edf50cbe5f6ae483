"""Logs are one JSON object a line, and contain nothing that looks like a secret."""

import json
import logging

import pytest
import structlog

from hookseal.ground import log

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


@pytest.fixture(autouse=True)
def _plain_structlog() -> object:
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


def written(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Return the one line that was logged."""
    return json.loads(capsys.readouterr().err)  # type: ignore[no-any-return]


@pytest.mark.req("OPS-03", part="logs")
def test_a_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """A line has its event, its level, its time in UTC and the bound values."""
    log.configure(level="info", style="json")
    structlog.get_logger().info("delivery.attempted", attempt=1)

    line = written(capsys)
    assert ("delivery.attempted", "info", 1) == (line["event"], line["level"], line["attempt"])
    assert str(line["at"]).endswith("Z")


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.parametrize(
    "bound",
    [
        {"secret": "hunter2-hunter2"},
        {"database_password": "hunter2-hunter2"},
        {"note": f"it was {SECRET}!"},
        {"url": "postgresql://user:hunter2-hunter2@db/x"},
        {"nested": {"deep": [SECRET], "api_token": "hunter2-hunter2"}},
        {"raw": b"hunter2-hunter2"},
        {"thing": ValueError(f"bad {SECRET}")},
    ],
)
def test_secrets_are_masked(capsys: pytest.CaptureFixture[str], bound: dict[str, object]) -> None:
    """No value under the name of a secret, and no secret within a text, reaches the log."""
    log.configure(level="info", style="json")
    structlog.get_logger().info("something.happened", **bound)

    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert SECRET not in text
    assert log.MASK in text


@pytest.mark.req("OPS-03", part="logs")
def test_other_values_than_text_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, booleans and None are logged unchanged, also within lists and objects."""
    log.configure(level="info", style="json")
    bound = {"numbers": [1, 2.5, True, None], "of": {"attempt": 3}}
    structlog.get_logger().info("something.happened", **bound)

    assert bound == {name: value for name, value in written(capsys).items() if name in bound}


@pytest.mark.req("OPS-03", part="logs")
def test_secrets_in_tracebacks_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """A secret in the message of an exception is masked in the traceback."""
    log.configure(level="info", style="json")
    try:
        int(SECRET)
    except ValueError:
        structlog.get_logger().exception("it.failed")

    text = capsys.readouterr().err
    assert "ValueError" in text
    assert SECRET not in text


def test_refs_are_not_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Secret refs are not masked: they contain no secret, and operators need them."""
    log.configure(level="info", style="json")
    structlog.get_logger().info("x", secret_ref="db:acme:n:1", secrets_provider="db")

    assert "db:acme:n:1" == written(capsys)["secret_ref"]


def test_arq_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """The arguments of jobs, which arq logs, are not written, at any log level of hookseal."""
    log.configure(level="debug", style="json")
    logging.getLogger("arq.worker").error("job(%r)", SECRET)

    assert "" == capsys.readouterr().err


@pytest.mark.req("OPS-03", part="logs")
def test_library_logs_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's log line, with its traceback, is one JSON object and masked as any other."""
    log.configure(level="info", style="json")
    try:
        int(SECRET)
    except ValueError:
        logging.getLogger("asyncpg.pool").warning("failed with %s", SECRET, exc_info=True)

    line = written(capsys)
    assert ("asyncpg.pool", "warning", f"failed with {log.MASK}") == (line["logger"], line["level"], line["event"])
    assert "ValueError" in str(line["exception"])
    assert SECRET not in str(line)


def test_half_a_surrogate_pair_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that UTF-8 cannot encode does not lose the line."""
    log.configure(level="info", style="json")
    structlog.get_logger().info("odd", text="\ud800")

    [line] = capsys.readouterr().err.splitlines()
    assert "\ud800" == json.loads(line)["text"]
