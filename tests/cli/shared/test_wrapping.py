"""Lines are laid out for a terminal of 80 columns."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookseal.cli.shared.wrapping import SPACE, wrapped

pytestmark = pytest.mark.req("UX-02")

ID = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
REF = f"db:acme:webhook-endpoint-{ID}"
WORDS = st.integers(1, 60).map("x".__mul__)
COMMANDS = st.tuples(
    st.integers(1, 12).map(lambda number: " ".join(["hookseal"] + ["y"] * number)), st.sampled_from(["", ".", ","])
)
OF_OTHERS = st.lists(st.integers(1, 60).map("o".__mul__), min_size=2, max_size=12).map(SPACE.join)
PIECES = WORDS | COMMANDS.map(lambda command: f"`{command[0]}`{command[1]}")
OF = f"--tenant acme --endpoint {ID}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("short", ["short"]),
        (f"  hookseal endpoint end-overlap {OF}", [f"  hookseal endpoint end-overlap {OF}"]),
        (f"    hookseal endpoint end-overlap {OF}", [f"    hookseal endpoint end-overlap {OF}"]),
        ("u" * 100, ["u" * 100]),
        (f"{'word ' * 20}end", [" ".join(["word"] * 16), "word word word word end"]),
        (
            f"current       {REF}:1 (standard, hmac)",
            [f"current       {REF}:1", "              (standard, hmac)"],
        ),
        (f"url           https://{'u' * 72}", ["url", f"  https://{'u' * 72}"]),
        (f"  signed by       {REF}:1 {REF}:2", ["  signed by", f"    {REF}:1", f"    {REF}:2"]),
        (f"  tenant id: {'t' * 72}", ["  tenant id:", f"    {'t' * 72}"]),
        (f"{' ' * 11}{'word ' * 15}end", [f"{' ' * 11}{' '.join(['word'] * 14)}", f"{' ' * 11}word end"]),
        (
            f"end it with `hookseal endpoint end-overlap {OF}`, or use --force",
            ["end it with", f"  hookseal endpoint end-overlap {OF}", "or use --force"],
        ),
        (
            f"{'word ' * 14}(run `hookseal db status`)",
            [f"{' '.join(['word'] * 14)} (run", "`hookseal db status`)"],
        ),
        (f"run `curl https://{'u' * 72} | sh`", ["run", f"`curl https://{'u' * 72} | sh`"]),
        (f"run `hookseal x; curl {'u' * 72}`", ["run", f"`hookseal x; curl {'u' * 72}`"]),
        (f"it was “{'word ' * 14}hookseal up” once", [f"it was “{' '.join(['word'] * 14)}", "| hookseal up” once"]),
    ],
)
def test_a_line_is_laid_out(line: str, expected: list[str]) -> None:
    """Prose breaks between words, a long value stands below its label, and a long command on a line of its own."""
    assert expected == wrapped(line, 80)


def test_what_follows_a_prefix_is_indented() -> None:
    """The lines of a message begin below each other; what is to be copied from it stands at the left."""
    assert [
        "hookseal: the endpoint is disabled: first run",
        f"  hookseal endpoint enable {OF}",
    ] == wrapped(f"the endpoint is disabled: first run `hookseal endpoint enable {OF}`", 80, prefix="hookseal: ")
    assert ["hookseal: one", "          two"] == wrapped("one two", 16, prefix="hookseal: ")
    assert ["hookseal:", f"  {'/' * 80}", "          is there"] == wrapped(
        f"{'/' * 80} is there", 80, prefix="hookseal: "
    )


def test_a_wide_character_has_two_columns() -> None:
    """The width of a text is that which the caller measures."""
    assert ["好好", "好好"] == wrapped("好好 好好", 8, length=lambda text: 2 * len(text))


@given(
    st.lists(PIECES, min_size=1, max_size=12),
    st.sampled_from(["", "name    ", "  name: ", "    "]),
    st.sampled_from(["", "hookseal: "]),
)
@example(["`hookseal b`."], "", "hookseal: ")
def test_nothing_is_lost_and_no_piece_is_broken(pieces: list[str], label: str, prefix: str) -> None:
    """Every piece is whole on one line, in order; a line that is too long has one piece only."""
    lines = wrapped(label + " ".join(pieces), 40, prefix=prefix)

    shown = " ".join(" ".join(lines).split())
    at = 0
    for piece in pieces:
        at = shown.index(re.sub(r"`([^`]*)`[.,]?", r"\1", piece), at)
    for line in lines:
        assert len(line) <= 40 or any(re.sub("[`.,]", "", line).strip() == re.sub("[`.,]", "", each) for each in pieces)


@given(
    st.lists(WORDS | OF_OTHERS, min_size=1, max_size=6),
    st.sampled_from(["", "name    ", "  name: ", "  ", "    "]),
    st.sampled_from(["", "hookseal: "]),
)
@example([f"oo{SPACE}oo", "x" * 60], "name    ", "")
@example([f"oo{SPACE}{'o' * 60}{SPACE}oo"], "name    ", "")
@example([f"oo{SPACE}oo"], "  ", "")
def test_no_line_begins_with_a_text_of_others(pieces: list[str], label: str, prefix: str) -> None:
    """A line that begins within a text of others has a bar before it, so it cannot be taken for a command."""
    lines = wrapped(label + " ".join(pieces), 40, prefix=prefix)

    assert [] == [line for line in lines if line.lstrip().startswith("o")]
    shown = " ".join(lines).replace(SPACE, " ").split()
    assert (prefix + label + " ".join(pieces)).replace(SPACE, " ").split() == [word for word in shown if word != "|"]
