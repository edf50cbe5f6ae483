"""`make docs-site`: takes pages and files from outside docs/ into the site, so that links to them work there, too.

MkDocs calls these functions (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    "README.md": "start.md",
    "deploy/README.md": "deploy.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK: Final = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and every file that a page links to and that is no page."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    linked = {target for file in files.documentation_pages() for target in _targets(file)}
    for path in sorted(linked):
        if (ROOT / path).is_file() and not path.startswith("docs/") and path not in PAGES:
            files.append(File.generated(config, f"files/{path}", content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- MkDocs names them
    """Return the page with its links as they are in the site."""
    here = _source(page.file)

    def within(link: re.Match[str]) -> str:
        before, target, anchor, after = link.groups()
        path = _resolved(here, target)
        if path is None:
            return link.group()
        to = _place(path)
        return link.group() if to is None else f"{before}{_from(page.file.src_uri, to)}{anchor or ''}{after}"

    return _LINK.sub(within, markdown)


def _targets(file: File) -> set[str]:
    paths = (_resolved(_source(file), target) for _, target, _, _ in _LINK.findall(file.content_string))
    return {path for path in paths if path is not None}


def _source(file: File) -> str:
    """Return where the page is in the repository."""
    for source, name in PAGES.items():
        if name == file.src_uri:
            return source
    return f"docs/{file.src_uri}"


def _resolved(here: str, target: str) -> str | None:
    return None if ":" in target else posixpath.normpath(posixpath.join(posixpath.dirname(here), target))


def _place(path: str) -> str | None:
    """Return where this path of the repository is in the site, relative to docs/; None for what is not in it."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        inside = path.removeprefix("docs/")
        return f"{inside}/README.md" if (ROOT / path / "README.md").is_file() else inside
    return f"files/{path}" if (ROOT / path).is_file() else None


def _from(here: str, to: str) -> str:
    return posixpath.relpath(to, posixpath.dirname(here) or ".")
