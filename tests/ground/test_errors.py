"""Every error says by its exit code who must act."""

import pytest

from hookseal import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.Malformed, 2),
        (errors.NotFound, 3),
        (errors.Conflict, 4),
        (errors.Refused, 5),
        (errors.Unavailable, 69),
        (errors.Exhausted, 69),
        (errors.LocalFailure, 69),
        (errors.Defect, 70),
        (errors.CannotSign, 70),
    ],
)
def test_each_error_class_has_its_exit_code(kind: type[errors.HooksealError], code: int) -> None:
    """Each class has its documented exit code, and its docstring is its message unless another is passed."""
    assert code == kind.exit_code
    assert str(kind()) == (kind.__doc__ or "").splitlines()[0]
    assert ("text", "url") == (str(kind("text")), kind("text", field="url").field)


def test_config_error_holds_every_problem() -> None:
    """All problems are reported at once."""
    error = errors.ConfigError(["a", "b"])

    assert (78, ["a", "b"], "a\nb") == (error.exit_code, error.problems, str(error))
    assert ["only"] == errors.ConfigError("only").problems
