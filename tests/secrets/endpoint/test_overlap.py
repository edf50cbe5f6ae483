"""Decisions about moving a pointer, made from the row that was read."""

from datetime import UTC, datetime

import pytest

from hookseal.errors import Conflict, Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core import overlap
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, ref

UNTIL = datetime(2026, 1, 3, tzinfo=UTC)
OVERLAPPING = replace(
    BARE,
    secret_ref=str(ref(2)),
    scheme="standard",
    previous_secret_ref=str(ref(1)),
    previous_secret_expires_at=UNTIL,
    previous_scheme="x-webhook",
    previous_algorithm="hmac",
    previous_due=True,
    generation=2,
)
EXPIRED = replace(OVERLAPPING, previous_due=False)
NO_PREVIOUS = {
    "previous_secret_ref": None,
    "previous_secret_expires_at": None,
    "previous_scheme": None,
    "previous_algorithm": None,
}


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("seconds", [0, 1, 86_400, 604_800])
def test_an_overlap_lasts_up_to_seven_days(seconds: int) -> None:
    """An overlap may be 0 to 604,800 seconds."""
    assert seconds == overlap.require_overlap(seconds)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("seconds", [-1, 604_801])
def test_an_overlap_out_of_range_is_refused(seconds: int) -> None:
    """Any other overlap is refused, and the error names the option."""
    with pytest.raises(Malformed) as caught:
        overlap.require_overlap(seconds)
    assert "overlap_seconds" == caught.value.field


@pytest.mark.req("SEC-09")
def test_another_generation_than_expected_is_refused() -> None:
    """A change that expects a generation is refused at any other; one without an expectation is never refused."""
    overlap.require_generation(BARE, None)
    overlap.require_generation(BARE, 1)
    for expected in (0, 2):
        with pytest.raises(Conflict, match=f"at generation 1, not {expected}"):
            overlap.require_generation(BARE, expected)


def test_a_revocation_counts_once_its_generation_is_reached() -> None:
    """The generation of a revocation is refused until the endpoint has reached it."""
    for revoked in (1, 2):
        overlap.require_reached(2, revoked)
    with pytest.raises(Conflict, match="at generation 2, not yet at 3") as caught:
        overlap.require_reached(2, 3)
    assert "generation" == caught.value.field


@pytest.mark.req("DEL-04", part="standard-ed25519")
def test_x_webhook_signs_with_hmac_only() -> None:
    """`x-webhook` signs with hmac only, and the error names both alternatives."""
    for scheme, algorithm in (
        (Scheme.STANDARD, Algorithm.HMAC),
        (Scheme.STANDARD, Algorithm.ED25519),
        (Scheme.X_WEBHOOK, Algorithm.HMAC),
    ):
        overlap.require_signable(scheme, algorithm)
    with pytest.raises(Malformed) as caught:
        overlap.require_signable(Scheme.X_WEBHOOK, Algorithm.ED25519)
    assert ("algorithm", "give --algorithm hmac, or --scheme standard") == (caught.value.field, caught.value.advice)


@pytest.mark.req("SEC-10")
def test_a_rotation_keeps_the_old_secret_as_previous() -> None:
    """In an overlap the old secret becomes the previous one and keeps its scheme and algorithm."""
    how = (Scheme.STANDARD, Algorithm.ED25519)
    changes = overlap.changes_of_rotation(
        replace(BARE, scheme="x-webhook"), ref(2), how=how, lead=None, expires_at=UNTIL
    )

    assert {
        "secret_ref": str(ref(2)),
        "scheme": "standard",
        "algorithm": "ed25519",
        "lead": "previous",
        "previous_secret_ref": str(ref(1)),
        "previous_secret_expires_at": UNTIL,
        "previous_scheme": "x-webhook",
        "previous_algorithm": "hmac",
    } == changes


@pytest.mark.req("SEC-10")
def test_after_a_revocation_only_the_new_secret_signs() -> None:
    """After a rotation without overlap only the new secret signs, even if an overlap was running."""
    how = (Scheme.STANDARD, Algorithm.HMAC)
    changes = overlap.changes_of_rotation(OVERLAPPING, ref(3), how=how, lead="current", expires_at=None)

    assert {
        "secret_ref": str(ref(3)),
        "scheme": "standard",
        "algorithm": "hmac",
        "lead": "current",
        **NO_PREVIOUS,
    } == changes


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(
    ("found", "seconds", "force"),
    [(BARE, 60, False), (BARE, 0, False), (EXPIRED, 60, False), (OVERLAPPING, 0, False), (OVERLAPPING, 60, True)],
)
def test_in_an_overlap_a_rotation_needs_force_or_revokes(found: object, seconds: int, force: bool) -> None:
    """A rotation may begin outside an overlap, as a revocation, or by force."""
    overlap.require_rotatable(found, overlap_seconds=seconds, force=force)  # type: ignore[arg-type]


@pytest.mark.req("SEC-10")
def test_a_running_overlap_is_not_cut_short() -> None:
    """A second rotation during an overlap is refused, and the error names `--force`."""
    for seconds in (1, 60):
        with pytest.raises(Conflict, match=r"would retire at once$") as caught:
            overlap.require_rotatable(OVERLAPPING, overlap_seconds=seconds, force=False)
        assert "--force" in (caught.value.advice or "")


def test_an_endpoint_without_a_secret_is_not_rotated() -> None:
    """An endpoint without a secret cannot be rotated, not even by force."""
    with pytest.raises(Conflict, match="no secret"):
        overlap.require_rotatable(replace(BARE, secret_ref=None), overlap_seconds=0, force=True)


@pytest.mark.req("SEC-10")
def test_a_rollback_exchanges_the_secrets() -> None:
    """A rollback during an overlap exchanges the two secrets, each with its own scheme."""
    later = datetime(2026, 1, 4, tzinfo=UTC)

    assert {
        "secret_ref": str(ref(1)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        "previous_secret_ref": str(ref(2)),
        "previous_secret_expires_at": later,
        "previous_scheme": "standard",
        "previous_algorithm": "hmac",
    } == overlap.changes_of_rollback(OVERLAPPING, expires_at=later)
    assert {
        "secret_ref": str(ref(1)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        **NO_PREVIOUS,
    } == overlap.changes_of_rollback(OVERLAPPING, expires_at=None)


@pytest.mark.req("SEC-10")
@pytest.mark.parametrize("found", [BARE, EXPIRED])
def test_a_rollback_outside_an_overlap_is_refused(found: object) -> None:
    """Once the overlap is over, a rollback is refused."""
    with pytest.raises(Conflict, match="no overlap"):
        overlap.changes_of_rollback(found, expires_at=UNTIL)  # type: ignore[arg-type]


@pytest.mark.req("SEC-10")
def test_the_end_of_an_overlap_retires_the_previous_secret() -> None:
    """`end-overlap` removes the previous secret, during the overlap and after it; without one it is refused."""
    assert NO_PREVIOUS == overlap.changes_of_end(OVERLAPPING) == overlap.changes_of_end(EXPIRED)
    with pytest.raises(Conflict, match="no previous"):
        overlap.changes_of_end(BARE)
