"""What is known of a secret record, from its endpoint and from the audit log: one that contradicts it was put back."""

from hookseal.secrets.errors import SecretRolledBack


def require_as_known(
    *, state: str, pointed: str | None, key_id: str, audited_key_id: str | None, key_is_drained: bool
) -> None:
    """Return only if a record stands as its endpoint and the audit log say.

    `pointed` is the state in which its endpoint needs it, None if no endpoint points at it now; `key_id` is the
    master key that sealed it, `audited_key_id` the one that the log last tells of, None if it tells of none;
    `key_is_drained` tells that a re-wrap left no record under its key. Raises `SecretRolledBack`.
    """
    if pointed is not None and state != pointed:
        raise _put_back(f"is {state} and its endpoint has it as {pointed}")
    if audited_key_id is not None and key_id != audited_key_id:
        raise _put_back("is sealed under another master key than the audit log knows")
    if key_is_drained:
        raise _put_back("is sealed under a master key that a re-wrap left no record of")


def _put_back(how: str) -> SecretRolledBack:
    return SecretRolledBack(
        f"the secret record {how}, so it was put back: find out by whom, and if it is lawful run "
        "`hookseal restore accept --head FILE` (runbook, HooksealRolledBack)"
    )
