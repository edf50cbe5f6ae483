"""`make docs-pictures`: looks at the site in a real Chromium, and leaves pictures of it in .reports/site.

It opens every page, and fails if one asks another server for something, or is wider than a phone. It searches, once by
HTTP and once in the files without a server, and fails if the guide to a question is not the first answer. Where there
is no Chromium, and none can be installed, it says so and ends with 0: nothing was looked at.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import TimeoutError as TooLate
from playwright.sync_api import sync_playwright

from tools.browser import chromium, missing
from tools.records import ROOT

SITE: Final = ROOT / ".site" / "html"
SHOTS: Final = ROOT / ".reports" / "site"
WIDTHS: Final = (1400, 390)
SCHEMES: Final = ("light", "dark")
MOST_MS: Final = 180_000  # it only ends what hangs: a machine may be busy
PICTURED: Final = {
    "landing": "index.html",
    "concepts": "concepts.html",
    "guide": "guide/retrying.html",
    "contents": "contents.html",
    "missing": "404.html",
}
# A question, and the page that must be the first answer.
QUESTIONS: Final = {
    "retry schedule": "guide/retrying.html",
    "rotate": "guide/rotating.html",
    "verify signature": "guide/verifying.html",
    "sqlalchemy": "guide/frameworks.html",
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library names it
        """Say nothing about each request."""


@contextmanager
def served() -> Iterator[str]:
    """Serve the site for the length of the block, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def looked_at(browser: Any, address: str) -> Iterator[str]:
    """Take the pictures, and yield each thing that is wrong with the site."""
    asked: set[str] = set()
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            context.on("request", lambda request: asked.add(request.url))
            context.set_default_timeout(MOST_MS)
            page = context.new_page()
            for name, path in PICTURED.items():
                page.goto(f"{address}/{path}")
                page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png")
            _is_answered(page, address, *next(iter(QUESTIONS.items())))
            page.screenshot(path=SHOTS / f"search-{width}-{scheme}.png")
            context.close()
    context = browser.new_context(viewport={"width": min(WIDTHS), "height": 900})
    context.on("request", lambda request: asked.add(request.url))
    context.set_default_timeout(MOST_MS)
    page = context.new_page()
    for name in sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*.html")):
        page.goto(f"{address}/{name}")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > min(WIDTHS):
            yield f"{name} is {wide} pixels wide at {min(WIDTHS)}"
    files = SITE.as_uri()
    for place in (address, files):
        for question, first in QUESTIONS.items():
            if not _is_answered(page, place, question, first):
                yield f"{place}: {question}: the first answer is not {first}"
    context.close()
    own = (address, files, "data:")
    yield from (f"a page asks another server for {url}" for url in sorted(asked) if not url.startswith(own))


def _is_answered(page: Any, place: str, question: str, first: str) -> bool:
    """Type the question into the search, and return whether this page becomes the first answer."""
    page.goto(f"{place}/index.html")
    page.keyboard.press("/")
    box = page.locator(".md-search__input")
    box.fill(question[:-1])
    box.press(question[-1])  # without a server only a key begins a search
    answer = page.locator(".md-search-result__item").first.locator(f'a[href^="{place}/{first}"]').first
    try:
        answer.wait_for()
    except TooLate:
        return False
    return True


def main() -> int:
    """Look at the site that `make docs-site` has built; return the exit code."""
    if why := missing():
        print(f"make docs-pictures: NOTHING WAS LOOKED AT, for there is no Chromium: {why}", file=sys.stderr)
        return 0
    SHOTS.mkdir(parents=True, exist_ok=True)
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=Path(chromium() or ""), args=options)
        wrong = list(looked_at(browser, address))
        browser.close()
    for line in wrong:
        print(f"make docs-pictures: {line}", file=sys.stderr)
    print(f"{len(list(SHOTS.glob('*.png')))} pictures in {SHOTS.relative_to(ROOT)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
