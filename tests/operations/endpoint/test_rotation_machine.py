"""Rotation, rollback, end of overlap, time, claims, crashes and two operators, in any order, compared with a model."""

import base64
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hookseal.dispatcher.core.model import Claim, Ring
from hookseal.errors import HooksealError, InDoubt
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.doubles.replaced import replace
from tests.operations.endpoint.rotation_world import (
    GIVEN,
    LEASE_SECONDS,
    EndOverlap,
    Model,
    Operation,
    Refusal,
    RollBack,
    Rotate,
    Version,
    World,
    answered,
    drawn_key,
    signed,
)
from tests.operations.watched import COMMIT, End

# A long run: ROTATION_EXAMPLES=2000, with other examples each time.
EXAMPLES = int(os.environ.get("ROTATION_EXAMPLES", "0"))
CONTENT = b"what is signed"
WEEK = 604_800
# Where an operation is interrupted: at one of its first statements, or at the commit.
PLACES = st.one_of(st.integers(1, 20), st.just(COMMIT))

OVERLAPS = st.sampled_from([0, 60, 60, 3_600, WEEK])
# Relative to the current generation; None expects nothing.
EXPECTED = st.sampled_from([None, None, None, 0, 0, -1, 1])
ROTATES = st.builds(
    Rotate,
    overlap_seconds=OVERLAPS,
    rotation_id=st.sampled_from([None, "named"]),
    expect=EXPECTED,
    scheme=st.sampled_from([None, None, *Scheme]),
    algorithm=st.sampled_from([None, None, *Algorithm]),
    lead=st.sampled_from([None, "previous", "current"]),
    force=st.booleans(),
    given=st.sampled_from([None, None, *GIVEN]),
)
OPERATIONS = st.one_of(
    ROTATES, st.builds(RollBack, overlap_seconds=OVERLAPS, expect=EXPECTED), st.builds(EndOverlap, expect=EXPECTED)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A claim that was not given back, with the versions that it signs with."""

    ring: Ring
    claim: Claim
    generation: int
    signing: tuple[int, ...]


class Rotations(RuleBasedStateMachine):
    """After any sequence of steps the database, the answers and the signatures are those of the model."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.site = world.run(world.site())
        first = Version(scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC, text=self.site.first)
        self.model = Model(now=world.run(world.now()), versions={1: first})
        self.asked: list[Rotate] = []
        self.waiting: list[Ring] = []
        self.held: list[Held] = []
        self.retired: set[int] = set()

    @rule(operation=OPERATIONS)
    def operate(self, operation: Operation) -> None:
        """An operator makes a change or is refused."""
        self._agrees(operation := self._resolved(operation), self._do(operation))

    @rule(force=st.booleans())
    def revoke(self, force: bool) -> None:
        """An operator revokes every older version."""
        self._agrees(operation := Rotate(overlap_seconds=0, force=force), self._do(operation))

    @precondition(lambda self: len(self.model.due()) > 1)
    @rule(overlap_seconds=OVERLAPS)
    def roll_back(self, overlap_seconds: int) -> None:
        """An operator rolls back to the previous secret while it signs."""
        self._agrees(operation := RollBack(overlap_seconds=overlap_seconds), self._do(operation))

    @precondition(lambda self: self.asked)
    @rule(at=st.integers(min_value=0), lead=st.sampled_from([None, None, "current"]))
    def ask_again(self, at: int, lead: str | None) -> None:
        """An operator repeats a used id, with the same arguments or others."""
        asked = replace(self.asked[at % len(self.asked)], drawn=drawn_key())
        operation = asked if lead is None else replace(asked, lead=lead)
        self._agrees(operation, self._do(operation))

    @rule(seconds=st.sampled_from([1, LEASE_SECONDS, 59, 3_600]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.model.now = self.world.run(self.world.move(timedelta(seconds=seconds)))

    @precondition(lambda self: len(self.model.due()) > 1)
    @rule(less=st.sampled_from([timedelta(0), timedelta(0), timedelta(microseconds=1)]), worker=st.integers(0, 1))
    def wait_for_the_end(self, less: timedelta, worker: int) -> None:
        """Time passes to the end of the overlap, or to just before it; then a worker claims."""
        assert self.model.expires_at is not None
        self.model.now = self.world.run(self.world.move(self.model.expires_at - self.model.now - less))
        self.claim(worker, is_new=True)

    @rule(worker=st.integers(0, 1), is_new=st.booleans())
    def claim(self, worker: int, is_new: bool) -> None:
        """A worker claims a delivery, new or given back, and signs."""
        if is_new or not self.waiting:
            self.waiting.append(self.world.run(self.site.publish()))
        ring = self.waiting.pop(0)
        claim = self.world.run(self.site.claim(ring))
        held = Held(ring=ring, claim=claim, generation=self.model.generation, signing=self.model.due())
        assert self.retired.isdisjoint(held.signing)
        self._signs(worker, held)
        self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(worker=st.integers(0, 1), at=st.integers(min_value=0), back=st.booleans())
    def sign(self, worker: int, at: int, back: bool) -> None:
        """A worker signs for an earlier claim with the versions that were due at the claim, and may give it back."""
        held = self.held[at % len(self.held)]
        self._signs(worker, held)
        if back:
            assert self.world.run(self.world.ledger.release(held.claim, None))
            self.held.remove(held)
            self.waiting.append(held.ring)

    @rule(operation=OPERATIONS, end=st.sampled_from(End), at=PLACES)
    def interrupt(self, operation: Operation, end: End, at: int) -> None:
        """An operation is interrupted at one of its statements: it counts if PostgreSQL has committed."""
        operation = self._resolved(operation)
        connection = self.world.operators[0]
        connection.interrupt(end, at)
        outcome = self._do(operation)
        if connection.was_reached:
            assert isinstance(outcome, Exception)
            self.world.run(self.world.ends(connection, self.site.endpoint))
            if connection.has_committed:
                assert isinstance(outcome, InDoubt)
                assert not isinstance(self.model.do(operation), Refusal)
        else:
            connection.watch()
            self._agrees(operation, outcome)

    @rule(first=OPERATIONS, second=OPERATIONS, at=PLACES)
    def run_two_concurrently(self, first: Operation, second: Operation, at: int) -> None:
        """A second operator acts in the middle of the first one's operation: they take effect one after the other."""
        first, second = self._resolved(first), self._resolved(second)
        for operation, outcome in self.world.run(self.site.do_both(first, second, at)):
            self._agrees(operation, outcome)

    @rule(operation=OPERATIONS, at=PLACES)
    def claim_meanwhile(self, operation: Operation, at: int) -> None:
        """A claim in the middle of an operation reads the state before it, or takes nothing."""
        operation = self._resolved(operation)
        self.waiting.append(ring := self.world.run(self.site.publish()))
        outcome, claim, is_after = self.world.run(self.site.do_and_claim(operation, ring, at))
        if is_after:
            self._agrees(operation, outcome)
        if claim is not None:
            self.waiting.remove(ring)
            self.held.append(Held(ring=ring, claim=claim, generation=self.model.generation, signing=self.model.due()))
            self._signs(0, self.held[-1])
        if not is_after:
            self._agrees(operation, outcome)

    @invariant()
    def agrees_with_the_model(self) -> None:
        """States, pointer, audit log and opened secrets are those of the model; one version is active."""
        model, stored = self.model, self.world.run(self.site.stored())
        states = list(stored.states.values())
        assert 1 == states.count("active")
        assert states.count("previous") <= 1
        assert model.states() == stored.states
        assert {number: version.scheme for number, version in model.versions.items()} == stored.schemes
        assert model.row() == stored.row
        assert model.generation == stored.audited_generation
        assert stored.is_chained
        assert model.audited == stored.audited
        moves = [generation for action, generation in stored.audited if action != "secret.revealed"]
        assert list(range(1, model.generation + 1)) == moves
        assert model.rotations == len(stored.rotations)
        assert set(model.answers) <= set(stored.rotations)
        older = [held for held in self.held if held.generation < model.generation and self._is_leased(held)]
        assert len(older) == stored.older_claims
        assert (model.seconds_left() is not None, model.seconds_left()) == (
            stored.overlap["overlapping"],
            stored.overlap["seconds_left"],
        )
        self.retired |= {number for number, state in stored.states.items() if state == "retired"}
        assert all("retired" == stored.states[number] for number in self.retired)
        self._opens(model.current, model.previous)

    def teardown(self) -> None:
        """Every version that ever existed opens to its secret."""
        self._opens(*self.model.versions)

    def _resolved(self, operation: Operation) -> Operation:
        """Return the operation with its own id and the expected generation."""
        expect = None if operation.expect is None else self.model.generation + operation.expect
        if isinstance(operation, Rotate) and operation.rotation_id is not None:
            operation = replace(operation, rotation_id=f"r{len(self.asked)}", expect=expect)
            self.asked.append(operation)
            return operation
        return replace(operation, expect=expect)

    def _do(self, operation: Operation) -> RotationResult | Pointer | Exception:
        return self.world.run(self.site.do(self.world.operators[0], operation))

    def _agrees(self, operation: Operation, outcome: RotationResult | Pointer | Exception) -> None:
        """Fail unless the outcome is that of the model."""
        expected = self.model.do(operation)
        if isinstance(expected, Refusal):
            assert isinstance(outcome, HooksealError), outcome
            assert expected == Refusal(kind=type(outcome), about=outcome.field or "")
            return
        if isinstance(outcome, Exception):
            raise outcome
        assert expected == answered(outcome)
        if isinstance(outcome, RotationResult):
            self._returned(outcome)

    def _returned(self, rotated: RotationResult) -> None:
        """Fail unless the returned secret or public key is that of the version."""
        version = self.model.versions[SecretRef.parse(rotated.secret_ref).version]
        self._opens(SecretRef.parse(rotated.secret_ref).version)
        assert version.text is not None
        if version.algorithm is Algorithm.ED25519:
            pair = base64.b64decode(version.text.removeprefix(b"whsk_"))
            assert "whpk_" + base64.b64encode(pair[32:]).decode() == rotated.public_key
        else:
            assert rotated.public_key is None
            assert rotated.secret is None or version.text == rotated.secret.reveal()

    def _signs(self, worker: int, held: Held) -> None:
        """Fail unless the worker signs with exactly the versions that were due at the claim, current first."""
        made = self.world.run(signed(self.world.workers[worker], held.claim, CONTENT))
        self._opens(*held.signing)
        assert tuple(self.site.ref(number) for number in held.signing) == made.refs
        assert tuple(self.model.versions[number].signature(CONTENT) for number in held.signing) == made.signatures

    def _opens(self, *numbers: int | None) -> None:
        """Fail unless these versions open to their secrets; drawn secrets are noted for later."""
        for number in numbers:
            if number is not None:
                version = self.model.versions[number]
                opened = self.world.run(self.site.opened(number))
                version.text = version.text or opened
                assert version.text == opened

    def _is_leased(self, held: Held) -> bool:
        return self.model.now < held.claim.claimed_at + timedelta(seconds=LEASE_SECONDS)


@pytest.mark.req("SEC-09", "SEC-10")
@pytest.mark.timeout(600 + EXAMPLES * 5)  # a failing example is minimised first
def test_every_sequence_of_operations_agrees_with_the_model(database_url: str) -> None:
    how = settings(
        max_examples=EXAMPLES or 8,
        stateful_step_count=40,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with World(database_url) as world:
        run_state_machine_as_test(partial(Rotations, world), settings=how)  # type: ignore[arg-type]  # it calls it
