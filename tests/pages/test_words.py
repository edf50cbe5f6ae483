"""The pages have a word for everything, and none of an operator."""

import re
from enum import StrEnum
from importlib.resources import files

import pytest

from hookseal.api.problems import Problem, of_error
from hookseal.dispatcher.core.model import Outcome, State, WaitingFor
from hookseal.dispatcher.core.probe import CanaryVerdict
from hookseal.dispatcher.core.replay_job import JobState
from hookseal.errors import ConfigError, Conflict, Malformed, NotFound, SecretDenied, Unavailable
from hookseal.ground.wire import Scheme
from hookseal.pages import words
from hookseal.pages.views.deliveries import SIGNATURES
from tests.governance.test_links import ROOT

OF_AN_OPERATOR = re.compile(
    r"\bhookseal [a-z]|(?<![\w-])--[a-z]|\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\btenant\b|PostgreSQL|Redis"
)


@pytest.mark.parametrize(
    ("said", "things"),
    [
        (words.DELIVERY, State),
        (words.WAITING, WaitingFor),
        (words.ATTEMPT, Outcome),
        (words.VERDICT, CanaryVerdict),
        (words.JOB, JobState),
    ],
)
def test_everything_has_a_word(said: dict[str, object], things: type[StrEnum]) -> None:
    assert set(said) == {str(each) for each in things}


def test_every_state_of_an_endpoint_has_a_word() -> None:
    assert {"healthy", "failing", "held", "stopped", "disabled"} == words.ENDPOINT.keys()


def test_no_text_has_words_of_an_operator() -> None:
    """Neither the templates nor the words, but for what is between `{{` and `}}`."""
    folder = files("hookseal.pages")
    texts = {
        each.name: each.read_text(encoding="utf-8") for each in folder.joinpath("templates").iterdir() if each.is_file()
    }
    texts = {
        name: re.sub(r"{{.*?}}|{%.*?%}|{#.*?#}|<[^>]*>", " ", text, flags=re.DOTALL) for name, text in texts.items()
    }
    for said in (words.ENDPOINT, words.DELIVERY, words.ATTEMPT, words.VERDICT, words.JOB):
        texts |= {name: f"{word.label} {word.meaning} {word.todo}" for name, word in said.items()}
    texts |= words.WAITING | words.NOTICES
    assert {} == {name: found[0] for name, text in texts.items() if (found := OF_AN_OPERATOR.search(text))}
    assert len(texts) > 60


@pytest.mark.parametrize(
    ("detail", "field", "said"),
    [
        ("url must be https://host[:port]/path", "url", "The URL must be https://host[:port]/path."),
        ("event type must be words", "event_types", "An event type must be words."),
        ("must be a date", "since", "Since must be a date."),
        ("urls differ", None, "Urls differ."),
        ("header x is given twice", "headers", "Header x is given twice."),
        ("why?", None, "Why?"),
    ],
)
def test_a_message_is_a_sentence(detail: str, field: str | None, said: str) -> None:
    assert said == words.sentence(detail, field)


def test_only_what_a_field_has_is_said_beside_it() -> None:
    assert {"url": "You already have an endpoint with this URL."} == words.said_of(Conflict("x", field="url"), {"url"})
    for error in (
        Malformed("x", field="other"),
        Malformed("x"),
        NotFound("x", field="url"),
        Unavailable("x", field="url"),
    ):
        with pytest.raises(type(error)):
            words.said_of(error, {"url"})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 415, 418, 422, 429, 500, 502, 503])
def test_every_problem_has_a_page(status: int) -> None:
    title, text = words.of_problem(Problem(status, "x", "internal words: HOOKSEAL_X"))
    assert title
    assert "HOOKSEAL" not in text


def test_what_an_operator_must_correct_is_for_the_support() -> None:
    for error in (SecretDenied("x"), ConfigError("x"), ConfigError("x", field="SECRETS_MASTER_KEY")):
        assert "ask the support of the product" in words.of_problem(of_error(error, None))[1]
    assert "It waits." == words.of_problem(of_error(Conflict("it waits"), None))[1]


@pytest.mark.parametrize("done", ["added", "rotated"])
def test_who_may_not_see_a_secret_is_not_asked_to_show_it(done: str) -> None:
    assert "Show" in str(words.notice(done, None, reveals=True))
    assert "Show" not in str(words.notice(done, None, reveals=False))


def test_each_scheme_has_the_names_of_its_headers() -> None:
    assert set(Scheme) == SIGNATURES.keys()


def test_the_code_is_that_of_the_guide() -> None:
    guide = (ROOT / "docs/guide/verifying.md").read_text(encoding="utf-8")
    from hookseal.pages.views.verifying import LANGUAGES  # noqa: PLC0415 -- it reads a file

    assert [] == [
        each.name for each in LANGUAGES.values() if each.code not in guide or f"## {each.name}\n" not in guide
    ]
