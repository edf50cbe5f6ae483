"""Links between the documents lead to a file that exists, and to a heading of it."""

import re
from pathlib import Path

import pytest

from tools.governance.tree import names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [name for name in names(ROOT) if name.endswith(".md")]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them from its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads(page: Path, link: str) -> bool:
    """Return whether the target of a link of that page exists in this repository."""
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in anchors(target)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    """Every link of a document to another file, or to a heading, leads there."""
    page = ROOT / name
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    assert [] == [link for link in links if not leads(page, link)]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A file that is missing, a heading that is missing and a file outside of the repository are found."""
    page = ROOT / "README.md"

    assert [True, False, False, False] == [
        leads(page, link) for link in ("docs/README.md#use-it", "docs/none.md", "docs/README.md#none", str(tmp_path))
    ]
