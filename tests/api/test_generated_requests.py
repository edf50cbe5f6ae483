"""What schemathesis asks, made from the document of the API: no answer is a fault, and each is as the document says.

Requests name what is there, so that they reach more than a 404. A valid one may be refused, for the document has no
grammar of names; one that the document forbids must be.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy

from hookseal import Admin
from hookseal.api.call import Call
from hookseal.api.calls import CALLS
from hookseal.api.description import document
from tests.api.owned import owned
from tests.doubles.stored import Installation

# A long run: API_EXAMPLES=200 of each call and kind, with other examples each time.
EXAMPLES = int(os.environ.get("API_EXAMPLES", "0"))
HOW: Final = settings(
    max_examples=EXAMPLES or 4,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
HEADERS: Final = {"authorization": "Bearer every"}


def asked(url: str, names: Mapping[str, str]) -> Counter[tuple[str, int]]:
    """Make requests of every call, those that delete last, and return how often each was answered with what status."""
    import schemathesis  # noqa: PLC0415 -- it takes a second, which no other test needs
    from requests import Session  # noqa: PLC0415 -- the same
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415 -- the same
    from schemathesis.specs.openapi import checks  # noqa: PLC0415 -- the same

    required = [
        not_a_server_error,
        checks.content_type_conformance,
        checks.negative_data_rejection,
        checks.response_schema_conformance,
        checks.status_code_conformance,
    ]
    schema = schemathesis.openapi.from_dict(document(CALLS))
    answers = Counter[tuple[str, int]]()
    with Session() as session:
        for call in sorted(CALLS, key=lambda call: (call.method == "DELETE", call.name == "application.delete")):
            for mode in schemathesis.GenerationMode:
                cases = schema[call.path][call.method].as_strategy(mode, path_parameters=_in_path(call, names))
                for case in examples(cases):
                    response = case.call(base_url=url, session=session, headers=HEADERS)
                    # Of a wrong value that is no text, such as an empty list, nothing is sent.
                    is_sent = all(value not in ([], {}, None) for value in (case.query or {}).values())
                    case.validate_response(
                        response,
                        checks=[each for each in required if is_sent or each is not checks.negative_data_rejection],
                    )
                    answers[call.name, response.status_code] += 1
    return answers


def examples(cases: SearchStrategy[Any]) -> list[Any]:
    """Return a few of these cases, the same ones each time, or others in a long run; none if there can be none.

    What is sent to a call with neither parameters nor a body cannot be wrong.
    """
    found: list[Any] = []

    @HOW
    @given(cases)
    def collect(case: Any) -> None:
        found.append(case)

    with suppress(Unsatisfiable):
        collect()
    return found


def _in_path(call: Call, names: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in names.items() if f"{{{name}}}" in call.path}


@pytest.mark.req("API-08")
@pytest.mark.timeout(600 + EXAMPLES * 60)
async def test_answers_to_generated_requests_are_as_described(
    url: str, admin: Admin, installation: Installation
) -> None:
    names = await owned(installation, admin, "acme", uid="main")
    answers = await asyncio.to_thread(asked, url, names)

    assert answers.total() > 300
    assert {call.name for call in CALLS} == {name for name, _ in answers}
    assert not [answer for answer in answers if answer[1] >= 500]
    done = {name for name, status in answers if status < 300}
    assert len(done) > len(CALLS) // 2, done
