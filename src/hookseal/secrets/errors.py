"""The errors of the secrets room. None carries a value of a secret or of a key.

A `SecretError` is definitive: the answer stays the same until somebody acts. `SecretUnavailable` is
transient: the same question may be answered later. Both are a `CannotSign`, which is all that the
dispatcher knows of them.
"""

from hookseal.ground.errors import CannotSign, Unavailable


class SecretError(CannotSign):
    """A secret cannot be had, and will not be until somebody acts."""

    code = "secret"
    exit_code = 5


class SecretNotFound(SecretError):
    """There is no such secret: bring its record back from a backup, or `hookseal endpoint rotate --overlap 0`."""

    code = "secret_not_found"
    exit_code = 3


class SecretDenied(SecretError):
    """The secret may not be given for this tenant, endpoint, provider or purpose."""

    code = "secret_denied"


class SecretDestroyed(SecretError):
    """The material of this secret version was destroyed."""

    code = "secret_destroyed"


class SecretUnusable(SecretError):
    """The secret cannot sign in the scheme and with the algorithm that the endpoint asks for."""

    code = "secret_unusable"


class SecretTampered(SecretError):
    """What is stored about a secret cannot be trusted, and is not used."""

    code = "secret_tampered"


class SecretRolledBack(SecretTampered):
    """What is stored is genuine, and older than what is known of it: somebody put it back."""

    code = "secret_rolled_back"


class IntegrityKeyUnknown(SecretTampered):
    """A MAC names a version of the integrity key that this process does not know, or not yet."""

    code = "integrity_key_unknown"


class SecretUnavailable(Unavailable, CannotSign):
    """The secret store does not answer: wait, or mend it."""

    code = "secret_unavailable"


class RecordRefused(SecretTampered):
    """A sealed record was not opened. Each reason is a class of its own."""

    code = "record_refused"


class RecordMalformed(RecordRefused):
    """The sealed record is not of the form that this version writes."""

    code = "record_malformed"


class KeyUnknown(RecordRefused):
    """The sealed record names a master key that this process does not hold."""

    code = "key_unknown"


class KeyRetired(RecordRefused):
    """The sealed record names a master key that may not open records any more."""

    code = "key_retired"


class ContextMismatch(RecordRefused):
    """The sealed record was made for another tenant, name, version or purpose, or under another key."""

    code = "context_mismatch"


class RecordTampered(RecordRefused):
    """The sealed record was altered after it was made."""

    code = "record_tampered"
