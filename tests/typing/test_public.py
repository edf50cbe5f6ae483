"""The public interface as an editor and a type checker see it."""

import inspect
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest

import hookseal
from hookseal import Admin, Event, Publisher
from hookseal.audit.chain import Action, Contradiction
from hookseal.dispatcher.core.concerns import Limit
from hookseal.dispatcher.core.model import OnDeadLetter, Outcome, State, WaitingFor
from hookseal.dispatcher.core.probe import CanaryVerdict
from hookseal.dispatcher.core.replay_job import FINAL, JobState
from hookseal.dispatcher.store.endpoint_queries import StatsOrder, Trouble
from hookseal.dispatcher.store.tokens import Scope
from hookseal.ground import literals
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.receiver import verify
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.restore import StaleKind
from hookseal.secrets.store.port import VersionState

pytestmark = pytest.mark.req("UX-03")

ROOT = Path(__file__).parents[2]
SETS: list[tuple[Any, type[StrEnum], set[str]]] = [  # the closed set, its enumeration, and what that has besides
    (literals.SchemeName, Scheme, set()),
    (literals.AlgorithmName, Algorithm, set()),
    (literals.DeliveryState, State, set()),
    (literals.FinalState, State, {*State} - {*FINAL}),
    (literals.WaitingReason, WaitingFor, set()),
    (literals.OutcomeName, Outcome, set()),
    (literals.TroubleName, Trouble, set()),
    (literals.OnDeadLetterName, OnDeadLetter, set()),
    (literals.StatsOrderName, StatsOrder, set()),
    (literals.ReplayState, JobState, set()),
    (literals.VerdictName, CanaryVerdict, set()),
    (literals.ProviderName, Provider, {Provider.DEV}),
    (literals.ScopeName, Scope, set()),
    (literals.LimitName, Limit, set()),
    (literals.VersionStateName, VersionState, set()),
    (literals.StaleKindName, StaleKind, set()),
    (literals.ContradictionName, Contradiction, set()),
    (literals.ActionName, Action, set()),
]
# Each line is one call. `mypy --strict` refuses those that are marked, and no other one.
CALLS = """
from datetime import datetime
import hookseal
from hookseal import Admin, Publisher, errors
from hookseal.admin import Algorithm, EndpointState, Scheme
from hookseal.receiver import verify

async def calls(admin: Admin, publisher: Publisher) -> None:
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", algorithm="ed25519", scheme="svix")
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", algorithm=Algorithm.HMAC)
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", algorithm="md5")  # refused
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", scheme="stripe")  # refused
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", on_dead_letter="go")  # refused
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", retry_schedule=["5s"])  # refused
    await admin.endpoints.add(tenant_id="a", url="u", event_types=["*"], actor="j", rate="20/s")  # refused
    await admin.endpoints.update(tenant_id="a", endpoint_id="e", actor="j", lead="previous", on_dead_letter="skip")
    await admin.endpoints.update(tenant_id="a", endpoint_id="e", actor="j", lead="both")  # refused
    await admin.endpoints.list(tenant_id="a", states=["held", "failing"])
    await admin.endpoints.list(tenant_id="a", states=["bogus"])  # refused
    await admin.endpoints.stats(tenant_id="a", sort="p99")
    await admin.endpoints.stats(tenant_id="a", sort="p98")  # refused
    await admin.endpoints.disable(tenant_id="a", endpoint_id="e", actor="j")
    await admin.endpoints.enable(tenant_id="a", endpoint_id="e", actor="j", since=datetime.now())
    await admin.deliveries.list(tenant_id="a", states=["dead_letter", "failed"])
    await admin.deliveries.list(tenant_id="a", states=["dead-letter"])  # refused
    await admin.attempts.list(tenant_id="a", endpoint_id="e", outcome="failed")
    await admin.attempts.list(tenant_id="a", endpoint_id="e", outcome="timeout")  # refused
    await admin.replays.start(tenant_id="a", actor="j", states=["failed"])
    await admin.replays.start(tenant_id="a", actor="j", states=["pending"])  # refused
    await admin.replays.list(tenant_id="a", state="running")
    await admin.replays.list(tenant_id="a", state="stopped")  # refused
    await admin.audit.list(tenant_id="a", action="endpoint.added")
    await admin.audit.list(tenant_id="a", action="endpoint.add")  # refused
    await admin.secrets.rotate(tenant_id="a", endpoint_id="e", actor="j", scheme=Scheme.SVIX, lead="current")
    await admin.secrets.rotate(tenant_id="a", endpoint_id="e", actor="j", algorithm="rsa")  # refused
    await admin.secrets.move(to="openbao", actor="j")
    await admin.secrets.move(to="vault", actor="j")  # refused
    await admin.tokens.add(name="n", tenant_id="a", actor="j", scopes=["read", "publish"])
    await admin.tokens.add(name="n", tenant_id="a", actor="j", scopes=["write"])  # refused
    state: EndpointState = (await admin.endpoints.find(tenant_id="a", uid="u")).state
    stands = (await admin.deliveries.get(tenant_id="a", delivery_id="d")).state
    stands = (await admin.deliveries.why(tenant_id="a", delivery_id="d")).state
    if stands == "dead-letter": pass  # refused
    await publisher.publish(tenant_id="a", event_type="t", data={})
    await publisher.publish(tenant_id="a", type="t", data={})  # refused
    verify(b"", {}, ["s"])
    if verify(b"", {}, ["s"]).scheme == "stripe": pass
    print(errors.Conflict().public, hookseal.errors.Malformed)
    hookseal.Bogus  # refused
"""


@pytest.mark.timeout(400)
def test_a_type_checker_refuses_what_is_not_in_a_closed_set(tmp_path: Path) -> None:
    """The result of an argument that the program would refuse is known before it runs."""
    calls = tmp_path / "calls.py"
    calls.write_text(CALLS, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary", calls],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    refused = {number for number, line in enumerate(CALLS.splitlines(), 1) if line.endswith("# refused")}
    found = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line}

    assert refused == found, run.stdout + run.stderr


@pytest.mark.parametrize(("names", "kind", "others"), SETS)
def test_a_closed_set_has_the_values_of_its_enumeration(names: Any, kind: type[StrEnum], others: set[str]) -> None:
    assert {*map(str, kind)} - others == {*get_args(names)}


def test_a_master_key_may_also_have_no_row() -> None:
    assert {*map(str, KeyState), "unregistered"} == {*get_args(literals.MasterKeyState)}


def test_completion_offers_what_is_public() -> None:
    """Before any of it is loaded, in a new process."""
    program = "import hookseal; print(*dir(hookseal)); print('asyncpg' in __import__('sys').modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert [" ".join(sorted(hookseal.__all__)), "False"] == run.stdout.splitlines()
    assert all(getattr(hookseal, name) is not None for name in hookseal.__all__)


def test_no_default_shows_an_address() -> None:
    """`help` shows each default as it is written: none is an object without a name."""
    groups = vars(Admin(session=None)).values()  # type: ignore[arg-type]
    public = [
        getattr(owner, name)
        for owner in (Publisher, Event, Admin, *map(type, groups))
        for name in dir(owner)
        if not name.startswith("_")
    ]
    signatures = [str(inspect.signature(each)) for each in (*public, Event, verify) if callable(each)]

    assert [] == [text for text in signatures if " at 0x" in text or "<object" in text]
    assert "data: object = UNSET" in str(inspect.signature(Publisher.publish))
