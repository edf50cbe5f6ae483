"""A visit in a browser: everything that the browser complains of is collected, and each page can be checked whole."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Response

AXE: Final = Axe()
RULES: Final = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
NARROW: Final = 320  # CSS pixels: 1280 at 400 % (WCAG 2.2, 1.4.10)
_WIDE: Final = {"width": 1280, "height": 900}
_POLICY: Final = ("default-src 'none'", "style-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors ")
# What a test asks for itself: a page that is refused, and a time in an address that is none.
_EXPECTED: Final = ("the server responded with a status of 4", "does not conform to the required format")


@dataclass(slots=True)
class Counts:
    """How often pages were looked at, in light and dark, what axe-core found, and how often a policy was violated."""

    pages: int = 0
    findings: int = 0
    violations: int = 0


COUNTS: Final[defaultdict[str, Counts]] = defaultdict(Counts)  # by the story


@dataclass(slots=True, kw_only=True)
class Visit:
    """A visit, and what is wrong with it: `complaints` of the browser, and answers without a policy."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def open(self, path: str = "/") -> Response | None:
        """Open a page by its path below the address of the pages."""
        return await self.page.goto(f"{self.url}{path}")

    async def press(self, name: str, *, nth: int = 0) -> None:
        """Press a button, and wait for the page that follows."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name=name, exact=True).nth(nth).click()

    async def follow(self, name: str, *, nth: int = 0) -> None:
        """Follow a link, and wait for its page."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("link", name=name, exact=True).nth(nth).click()

    async def fill(self, label: str, text: str) -> None:
        """Write a text into the field with this label."""
        await self.page.get_by_label(label, exact=True).fill(text)

    async def text(self) -> str:
        """Return what the page says."""
        text: str = await self.page.locator("main").inner_text()
        return text

    async def heading(self) -> str:
        """Return the first heading."""
        text: str = await self.page.locator("h1").first.inner_text()
        return text

    @property
    def path(self) -> str:
        """The path below the address of the pages, with its query."""
        address: str = self.page.url
        return address.removeprefix(self.url)

    async def check(self, story: str) -> None:
        """Fail unless the page is accessible in both themes, and fits a narrow window without scrolling sideways."""
        counts = COUNTS[story]
        found = []
        for theme in ("light", "dark"):
            # A colour that is still changing from the theme before would be judged.
            await self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            results = await AXE.run(self.page, options=RULES)
            counts.pages += 1
            counts.findings += len(results.response["violations"])
            found += [f"{theme}: {_shown(each)}" for each in results.response["violations"]]
        await self.page.emulate_media(color_scheme="light")
        await self.page.set_viewport_size({"width": NARROW, "height": 800})
        width = await self.page.evaluate("document.scrollingElement.scrollWidth")
        await self.page.set_viewport_size(_WIDE)
        assert [] == found, "\n".join([self.path, *found])
        assert NARROW >= width, f"{self.path} is {width} px wide"


def _shown(violation: dict[str, Any]) -> str:
    places = [f"{node['html'][:200]} {node.get('failureSummary', '')}" for node in violation["nodes"][:5]]
    return "\n  ".join([f"{violation['id']}: {violation['help']}", *places])


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, story: str, *, policed: str = "", **options: Any
) -> AsyncIterator[Visit]:
    """Yield a visit in a browser context of its own, with these options of Playwright.

    It fails at the end if the browser complained of anything, or if an answer below the path `policed` had no strict
    policy.
    """
    context = await browser.new_context(**{"viewport": _WIDE, "timezone_id": "UTC"} | options)
    context.set_default_timeout(20_000)
    visit = Visit(page=await context.new_page(), url=url)
    watch(context, visit, f"{url}{policed}")
    try:
        yield visit
    finally:
        await context.close()
    violations = [each for each in visit.complaints if "Content Security Policy" in each or "CSP" in each]
    COUNTS[story].violations += len(violations) + len(visit.answers)
    wrong = [*visit.complaints, *visit.answers]
    assert not wrong, "\n".join(wrong)


def watch(context: BrowserContext, visit: Visit, policed: str) -> None:
    """Collect what the browser complains of, and answers of the pages that lack what each of them must have."""

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(each in message.text for each in _EXPECTED):
            visit.complaints.append(message.text)

    def failed(error: Error) -> None:
        visit.complaints.append(f"script: {error}")

    def answered(response: Response) -> None:
        if not response.url.startswith(policed):
            return
        headers = response.headers
        is_page = headers.get("content-type", "").startswith("text/html")
        policy = headers.get("content-security-policy", "")
        if is_page and not all(part in policy for part in _POLICY):
            visit.answers.append(f"{response.url}: {policy}")
        if is_page and headers.get("cache-control") != "no-store":
            visit.answers.append(f"{response.url}: may be cached")
        if "unsafe" in policy or "http:" in policy:
            visit.answers.append(f"{response.url}: {policy}")

    context.on("console", heard)
    context.on("weberror", lambda error: failed(error.error))
    context.on("response", answered)
