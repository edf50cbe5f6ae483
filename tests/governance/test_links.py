"""Links between the documents lead to a file that exists, and to a heading of it."""

import re
from pathlib import Path

import pytest

from tools.governance.report import names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [name for name in names(ROOT) if name.endswith(".md")]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub makes them from its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads(page: Path, link: str) -> bool:
    """Return whether a link of that page leads to a file of this repository, so that the site has it, too."""
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.is_relative_to(ROOT) or not target.is_file():
        return False
    return not anchor or anchor in anchors(target)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    """Every link of a document to another file, or to a heading, leads there."""
    page = ROOT / name
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    assert [] == [link for link in links if not leads(page, link)]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A file or heading that is missing, a folder, and a file outside of the repository are found."""
    page, outside = ROOT / "README.md", tmp_path / "outside.md"
    outside.touch()

    assert leads(page, "docs/README.md#build")
    for link in ("docs/none.md", "docs/README.md#none", "docs", str(outside)):
        assert not leads(page, link), link


def test_the_site_lists_every_page() -> None:
    """Every page of docs/ is in the navigation of the site, or named as left out."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/")]
    left_out = re.compile(r"README\.md|decisions/0.*|WORK_ITEMS/[A-Z]+\.md")  # docs/README.md is contents.md there

    assert [] == [page for page in pages if f" {page}\n" not in settings and not left_out.fullmatch(page)]
