"""The errors of hookseal, for everybody who catches one. Each class says who must act, and has an exit code.

A failure of a receiver (it refuses, hangs or sends nonsense) is never an exception: it is an `Outcome` in the
dispatcher. No error carries a value of a secret or of a key.

A `SecretError` is definitive: a retry fails until somebody acts. A `SecretUnavailable` is transient: a retry may
succeed. Both are a `CannotSign`, which is all that the dispatcher knows of them. A `VerificationError` is for a
receiver of webhooks.
"""

import errno
import re
from enum import StrEnum
from typing import ClassVar, Final

_CODES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# A command, an option of one, or a variable: words of an operator.
_OF_AN_OPERATOR: Final = re.compile(r"`|\bhookseal [a-z]|(?<![\w-])--[a-z]|\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")


def for_a_customer(text: str, general: str) -> str:
    """Return the text; if it has a command, an option or a variable, which are for an operator, the general text."""
    return general if _OF_AN_OPERATOR.search(text) else text


class HooksealError(Exception):
    """Something went wrong in hookseal. The message says what happened.

    `field` names the argument or setting at fault, and `index` the position of the faulty item in a list, counted from
    0; each is None if it does not apply. `advice` says, in words of the command line, what an operator can do; None if
    the message says all. `with_advice` joins both, with `joint` between them. `public` is a text for a customer of the
    product: show them this one, never the message.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70
    general: ClassVar[str] = "internal error"  # what a customer reads in place of a message that is not for them
    about_the_request: ClassVar[bool] = False  # so that a customer may read the message

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        index: int | None = None,
        advice: str | None = None,
        joint: str = ": ",
        public: str | None = None,
    ) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.field = field
        self.index = index
        self.advice = advice
        self.joint = joint
        self._public = public

    @property
    def public(self) -> str:
        """What happened, for a customer of the product: without a setting, a command or a right of an operator."""
        if self._public is not None:
            return self._public
        return for_a_customer(str(self), self.general) if self._is_for_a_customer else self.general

    @property
    def _is_for_a_customer(self) -> bool:
        return self.about_the_request


def with_advice(error: BaseException) -> str:
    """Return the message of the error and its advice, for an operator: a reader of a terminal or of a log."""
    if not isinstance(error, HooksealError) or error.advice is None:
        return str(error)
    return f"{error}{error.joint}{error.advice}"


class Malformed(HooksealError):
    """A value has the wrong form: its sender must correct it."""

    code = "malformed"
    exit_code = 2
    general = "the value is not allowed"
    about_the_request = True


class NotFound(HooksealError):
    """The named object does not exist."""

    code = "not_found"
    exit_code = 3
    general = "it does not exist"
    about_the_request = True


class Conflict(HooksealError):
    """The request contradicts what is stored."""

    code = "conflict"
    exit_code = 4
    general = "it contradicts what is stored"
    about_the_request = True


class Refused(HooksealError):
    """A rule forbids this: the operator must change the request or the rule."""

    code = "refused"
    exit_code = 5
    general = "a rule of this server forbids it"
    about_the_request = True

    @property
    def _is_for_a_customer(self) -> bool:
        """What names no argument is about the rights or the settings of this process."""
        return self.field is not None and not self.field.isupper()


class Cause(StrEnum):
    """Why a service cannot be used now, in the word that `/readyz` has for it."""

    SILENT = "unavailable"  # it does not answer
    SEALED = "sealed"
    THROTTLED = "throttled"
    FAILING = "failing"  # it answers that it cannot do it now
    REFUSED = "refused"  # it answers that it must not do it
    FOREIGN = "wrong_server"  # what answers is something else


class Unavailable(HooksealError):
    """A service that hookseal needs does not answer, or cannot do it now: wait, or repair it. `cause` says which."""

    code = "unavailable"
    exit_code = 69
    general = "this cannot be done at the moment: try again"

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        index: int | None = None,
        advice: str | None = None,
        joint: str = ": ",
        public: str | None = None,
        cause: Cause = Cause.SILENT,
    ) -> None:
        super().__init__(message, field=field, index=index, advice=advice, joint=joint, public=public)
        self.cause = cause


class Busy(Unavailable):
    """Another session is changing this at the moment, and nothing was done: try again."""

    code = "busy"


class InDoubt(Unavailable):
    """It is unknown whether the change was made: check it, or repeat it if it can be repeated safely."""

    code = "in_doubt"


class OutcomeKept(HooksealError):
    """PostgreSQL refuses this outcome: it is kept, and recorded as soon as PostgreSQL lets it. The message says why."""

    code = "outcome_kept"


class Exhausted(HooksealError):
    """This machine has run out of a resource (file descriptors, memory): raise its limits, or give it less work."""

    code = "exhausted"
    exit_code = 69
    general: ClassVar[str] = Unavailable.general


class LocalFailure(HooksealError):
    """Only this process cannot do it now: start more processes, or correct what the message names."""

    code = "local_failure"
    exit_code = 69
    general: ClassVar[str] = Unavailable.general


class Defect(HooksealError):
    """An impossible state: this is a bug in hookseal, please report it."""

    code = "internal"
    exit_code = 70


class ConfigError(HooksealError):
    """The settings cannot be used: the operator must change them before anything can start."""

    code = "configuration"
    exit_code = 78
    general = "the settings of this server do not allow it: ask its operator"

    def __init__(self, problems: str | list[str], *, field: str | None = None, advice: str | None = None) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems), field=field, advice=advice)


class CannotSign(HooksealError):
    """A secret that must sign is not available: the delivery waits, and no attempt is used up."""

    code = "cannot_sign"
    exit_code = 70
    general = "a stored secret cannot be used: the operator of this server must act"


def exhausted_resource(error: BaseException) -> str | None:
    """Return the error code's name if the error says that a resource of this machine is exhausted, else None."""
    code = error.errno if isinstance(error, OSError) else None
    return errno.errorcode[code] if code in _CODES else None


class SecretError(CannotSign):
    """A secret is not available, and somebody must act before it is."""

    code = "secret"
    exit_code = 5


class SecretNotFound(SecretError):
    """There is no such secret."""

    code = "secret_not_found"
    exit_code = 3


class SecretDenied(SecretError):
    """The secret must not be used for this tenant, endpoint, provider or purpose."""

    code = "secret_denied"
    general = "this server may not use this secret: its operator must allow it"


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
    """The stored data is genuine, but contradicts the audit log: an older copy, or a change that was not audited."""

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


class VerificationError(HooksealError):
    """The request is not proven to be recent and to come from the holder of a secret: answer 401 and ignore it."""

    code = "not_verified"
    exit_code = 1
    general = "the request is not verified"
    reason: ClassVar[str] = "not_verified"


class MissingHeader(VerificationError):
    """A required header is missing."""

    reason = "missing_header"


class MalformedHeader(VerificationError):
    """A header does not have its form."""

    reason = "malformed_header"


class UnusableSecret(VerificationError):
    """The receiver has no secret that can verify this request: its operator must correct the secrets."""

    reason = "unusable_secret"


class UntrimmedSecret(UnusableSecret):
    """A secret begins or ends with white space, as a line of a file does: the receiver's operator must strip it."""

    reason = "untrimmed_secret"


class NoMatchingSignature(VerificationError):
    """No signature matches: the request was signed with another secret, or the body differs from what was signed."""

    reason = "no_matching_signature"


class OutsideTolerance(VerificationError):
    """A signature matches, but its time is too far from now: a replay, or a wrong clock."""

    reason = "outside_tolerance"
