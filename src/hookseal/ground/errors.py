"""The errors of hookseal: every class says who must act, and every command ends with its exit code.

A failure of the other side (a receiver that refuses, hangs or lies) is never an exception: it is an
`Outcome` in the dispatcher.
"""

from typing import ClassVar


class HooksealError(Exception):
    """Something went wrong in hookseal."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.field = field


class Malformed(HooksealError):
    """A value is not of its form: whoever gave it must correct it."""

    code = "malformed"
    exit_code = 2


class NotFound(HooksealError):
    """What was named is not there."""

    code = "not_found"
    exit_code = 3


class Conflict(HooksealError):
    """What was asked contradicts what is stored."""

    code = "conflict"
    exit_code = 4


class Refused(HooksealError):
    """A rule forbids it: the operator must change the request or the rule."""

    code = "refused"
    exit_code = 5


class Unavailable(HooksealError):
    """Something that we depend on does not answer: wait, or mend it."""

    code = "unavailable"
    exit_code = 69


class Busy(Unavailable):
    """Somebody else changes it at this moment, and nothing was done: try again."""

    code = "busy"


class InDoubt(Unavailable):
    """It is not known whether it was done: look, or repeat what may be repeated."""

    code = "in_doubt"


class Exhausted(HooksealError):
    """This machine has none left of what it takes (descriptors, memory): raise its limits, or give it less to do."""

    code = "exhausted"
    exit_code = 69


class LocalFailure(HooksealError):
    """This process alone cannot do it now: run more of them, or correct what the message names."""

    code = "local_failure"
    exit_code = 69


class Defect(HooksealError):
    """A state that cannot be: this is a fault of hookseal, please report it."""

    code = "internal"
    exit_code = 70


class ConfigError(HooksealError):
    """The settings cannot be used: the operator must change them before anything starts."""

    code = "configuration"
    exit_code = 78

    def __init__(self, problems: str | list[str], *, field: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems), field=field)


class CannotSign(HooksealError):
    """A secret that must sign cannot be had: the delivery waits, unsent and unspent."""

    code = "cannot_sign"
    exit_code = 70
