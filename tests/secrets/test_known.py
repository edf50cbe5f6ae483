"""What is known of a record: one that contradicts its endpoint or the audit log was put back."""

import pytest

from hookseal.secrets.errors import SecretRolledBack
from hookseal.secrets.known import require_as_known


@pytest.mark.req("SEC-24", part="put-back")
@pytest.mark.parametrize(
    ("state", "pointed", "key_id", "audited", "problem"),
    [
        ("active", "active", "a", "a", None),
        ("previous", "previous", "a", None, None),
        ("retired", None, "a", None, None),
        ("active", None, "a", "a", None),
        ("retired", "active", "a", "a", "is retired and its endpoint has it as active"),
        ("active", "previous", "a", None, "is active and its endpoint has it as previous"),
        ("active", "active", "b", "a", "under another master key"),
        ("retired", None, "b", "a", "under another master key"),
    ],
)
def test_known(state: str, pointed: str | None, key_id: str, audited: str | None, problem: str | None) -> None:
    """State and master key are compared where anything is known of them."""
    if problem is None:
        require_as_known(state=state, pointed=pointed, key_id=key_id, audited_key_id=audited)
    else:
        with pytest.raises(SecretRolledBack, match=problem):
            require_as_known(state=state, pointed=pointed, key_id=key_id, audited_key_id=audited)
