"""What is known of a record: one that contradicts its endpoint or the audit log was put back."""

from contextlib import nullcontext

import pytest

from hookseal.secrets.errors import SecretRolledBack
from hookseal.secrets.known import require_as_known


@pytest.mark.req("SEC-24", part="put-back")
@pytest.mark.parametrize(
    ("state", "pointed", "key_id", "audited", "drained", "problem"),
    [
        ("active", "active", "a", "a", False, None),
        ("previous", "previous", "a", None, False, None),
        ("retired", None, "a", None, False, None),
        ("active", None, "a", "a", False, None),
        ("retired", "active", "a", "a", False, "is retired and its endpoint has it as active"),
        ("active", "previous", "a", None, False, "is active and its endpoint has it as previous"),
        ("active", "active", "b", "a", False, "under another master key"),
        ("retired", None, "b", "a", False, "under another master key"),
        ("active", "active", "a", "a", True, "that a re-wrap left no record of"),
    ],
)
def test_known(
    *, state: str, pointed: str | None, key_id: str, audited: str | None, drained: bool, problem: str | None
) -> None:
    """State and master key are compared where anything is known of them."""
    with nullcontext() if problem is None else pytest.raises(SecretRolledBack, match=problem):
        require_as_known(state=state, pointed=pointed, key_id=key_id, audited_key_id=audited, key_is_drained=drained)
