"""`make docs-site`: takes pages and files from outside docs/ into the site, so that links to them work there, too.

It also says what the search leaves out and ranks first, and refuses a page that asks another server for something, an
alert whose section is missing, and a link of the page for a wrong address that leads nowhere.
MkDocs calls these functions (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

import json
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.lists import nested
from tools.outside import addresses

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "deploy/README.md": "deploy.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
# How the search ranks a page: the first pattern that fits counts, and a page with 0 is not found at all. Guides come
# first, what explains the inside comes last, and what proves things has its tab.
RANKS: Final[Mapping[str, float]] = {
    "guide/*": 4,
    "api.md": 2,
    "concepts.md": 2,
    "deploy.md": 2,
    "pages.md": 2,
    "restore.md": 2,
    "threat-model.md": 0.5,
    "architecture.md": 0.5,
    "CANONICAL/*": 0.5,
    "decisions/*": 0.5,
    "reference/*": 0.5,
    "contents.md": 0,
    "changelog.md": 0,
    "requirements.md": 0,
    "TRACEABILITY.md": 0,
    "EVIDENCE/*": 0,
    "WORK_ITEMS/*": 0,
    "proof/*": 0,
}
ALERTS: Final = ROOT / "deploy" / "kubernetes" / "monitoring" / "prometheusrule.yaml"
_LINK: Final = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the version in the head of each page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.site_name = f"{config.site_name} {project['version']}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and every file that a page links to and that is no page."""
    index = files.get_file_from_path("README.md")  # the README of the repository is the landing page in its place
    if index is not None:
        files.remove(index)
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    linked = {target for file in files.documentation_pages() for target in _targets(file)}
    for path in sorted(linked):
        if (ROOT / path).is_file() and not path.startswith("docs/") and path not in PAGES:
            files.append(File.generated(config, f"files/{path}", content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- MkDocs names them
    """Return the page with its links as they are in the site, and say how the search treats it."""
    here, name = _source(page.file), page.file.src_uri
    rank = _rank(name)
    page.meta["search"] = {"boost": rank} if rank else {"exclude": True}
    if name == PAGES["README.md"]:
        page.meta["hide"] = ["navigation", "toc"]

    def within(link: re.Match[str]) -> str:
        before, target, anchor, after = link.groups()
        path = _resolved(here, target)
        if path is None:
            return link.group()
        to = _place(path)
        return link.group() if to is None else f"{before}{_from(page.file.src_uri, to)}{anchor or ''}{after}"

    return nested(_LINK.sub(within, markdown))


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001 -- MkDocs names them
    """Return the page as it is. Raises `PluginError` if it asks another server for something."""
    if asked := addresses(output):
        raise PluginError(f"{page.file.src_uri} asks another server: {', '.join(asked)}")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Raise `PluginError` with everything that is wrong with the site as a whole."""
    if wrong := list(_wrong(Path(config.site_dir))):
        raise PluginError("\n".join(wrong))


def _wrong(site: Path) -> Iterator[str]:
    for page, anchor in re.findall(r"runbook_url: docs/(\S+)\.md#(\S+)", ALERTS.read_text(encoding="utf-8")):
        if f'id="{anchor}"' not in (site / f"{page}.html").read_text(encoding="utf-8"):
            yield f"{page}.html has no section for the alert {anchor}"
    # No other page is written from a template, so that its links are not those of a document, which are checked.
    for link in re.findall(r'(?:href|src)="/([^"#]*)', (site / "404.html").read_text(encoding="utf-8")):
        if not (site / link).is_file() and not (site / link / "index.html").is_file():
            yield f"404.html has a link to /{link}, which is not there"
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    pages = {entry["location"].partition("#")[0].removesuffix(".html") for entry in index["docs"]}
    yield from (f"the search finds {page}" for page in sorted(pages) if not _rank(f"{page}.md"))


def _rank(name: str) -> float:
    return next((rank for pattern, rank in RANKS.items() if fnmatch(name, pattern)), 1)


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
