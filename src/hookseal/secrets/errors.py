"""The errors of the secrets room. None carries a value of a secret or of a key.

A `SecretError` is definitive: a retry fails until somebody acts. `SecretUnavailable` is transient: a retry may
succeed. Both are a `CannotSign`, which is all that the dispatcher knows of them.
"""

from hookseal.ground.errors import CannotSign, Unavailable


class SecretError(CannotSign):
    """A secret is not available, and somebody must act before it is."""

    code = "secret"
    exit_code = 5


class SecretNotFound(SecretError):
    """There is no such secret: restore its record from a backup, or run `hookseal endpoint rotate --overlap 0`."""

    code = "secret_not_found"
    exit_code = 3


class SecretDenied(SecretError):
    """The secret must not be used for this tenant, endpoint, provider or purpose."""

    code = "secret_denied"


class SecretDestroyed(SecretError):
    """The material of this secret version was destroyed."""

    code = "secret_destroyed"


class SecretUnusable(SecretError):
    """The secret cannot sign in the scheme and with the algorithm that the endpoint asks for."""

    code = "secret_unusable"


class SecretTampered(SecretError):
    """The stored data of a secret cannot be trusted, so the secret is not used."""

    code = "secret_tampered"


class StaleRow(SecretTampered):
    """The stored data is genuine but stale: somebody replaced it by an older copy."""

    code = "stale_row"


class IntegrityKeyUnknown(SecretTampered):
    """A MAC names a version of the integrity key that this process does not know (yet)."""

    code = "integrity_key_unknown"


class SecretUnavailable(Unavailable, CannotSign):
    """The secret store does not answer, or cannot do it now: wait, or repair it. `cause` says which."""

    code = "secret_unavailable"


class RecordRefused(SecretTampered):
    """A sealed record did not open. Each reason has a subclass."""

    code = "record_refused"


class RecordMalformed(RecordRefused):
    """The sealed record does not have the format that this version writes."""

    code = "record_malformed"


class KeyUnknown(RecordRefused):
    """The sealed record names a master key that this process does not have."""

    code = "key_unknown"


class KeyRetired(RecordRefused):
    """The sealed record names a master key that is retired and opens nothing any more."""

    code = "key_retired"


class ContextMismatch(RecordRefused):
    """The sealed record was made for another tenant, name, version or purpose, or under another key."""

    code = "context_mismatch"


class RecordTampered(RecordRefused):
    """The sealed record was altered after it was made."""

    code = "record_tampered"
