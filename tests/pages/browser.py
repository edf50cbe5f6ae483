"""A browser without scripts: it follows redirects, keeps cookies, and sends forms as HTML says."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx


@dataclass
class Form:
    """A form of a page: where and how it is sent, its buttons, and the values that it has."""

    action: str
    method: str
    buttons: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)


class Parsed(HTMLParser):
    """The forms, the links, the elements and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[tuple[str, str]] = []  # what is read now: its kind, and its address or its name
        self._read = ""
        self._is_chosen = False
        self._within = False
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "form":
            self.forms.append(Form(action=given["action"] or "", method=given["method"] or "get"))
            self._within = True
        elif tag == "input" and name:
            is_choice = given.get("type") in {"checkbox", "radio"}
            self.forms[-1].options.setdefault(name, []).append(value)
            if not is_choice or "checked" in given:
                self.forms[-1].values.setdefault(name, []).append(value)
        elif tag in {"textarea", "select", "option", "button", "a"}:
            self._inside.append((tag, name or given.get("href") or value))
            self._read = ""
            if tag == "option":
                select = next(each for kind, each in reversed(self._inside) if kind == "select")
                self.forms[-1].options.setdefault(select, []).append(value)
                if "selected" in given or select not in self.forms[-1].values:
                    self.forms[-1].values[select] = [value]

    def handle_data(self, data: str) -> None:
        self.text += data + " "
        self._read += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._within = False
        if not self._inside or self._inside[-1][0] != tag:
            return
        _, name = self._inside.pop()
        if tag == "textarea":
            self.forms[-1].values[name] = [self._read.removeprefix("\n")]
        if tag == "button":
            self.forms[-1].buttons.append(" ".join(self._read.split()))
        if tag == "a":
            self.links[" ".join(self._read.split())] = name

    @property
    def buttons(self) -> list[str]:
        return [button for form in self.forms for button in form.buttons]


OWN = {"sec-fetch-site": "same-origin"}


class Browser:
    """A visitor of the pages: the page that is open, and what can be done on it."""

    def __init__(self, client: httpx.AsyncClient, root: str = "") -> None:
        self.client = client
        self.root = root
        self.response = httpx.Response(0)
        self.page = Parsed("")

    async def open(self, path: str) -> "Browser":
        """Open the page at this path below the root."""
        return await self._got(self.client.get(path if path.startswith("http") else self.root + path))

    async def follow(self, link: str) -> "Browser":
        """Open the page of the link with this text."""
        return await self._got(self.client.get(self.page.links[link]))

    async def press(self, button: str, **values: str | list[str]) -> "Browser":
        """Send the form with this button, with these values in place of its own."""
        form = next(form for form in self.page.forms if button in form.buttons)
        return await self.send(form, **values)

    async def send(self, form: Form, **values: str | list[str]) -> "Browser":
        """Send a form, with these values in place of its own."""
        given = {**form.values, **{name: [each] if isinstance(each, str) else each for name, each in values.items()}}
        encoded = urlencode([(name, each) for name, several in given.items() for each in several])
        if form.method == "get":
            return await self._got(self.client.get(f"{form.action}?{encoded}"))
        headers = OWN | {"content-type": "application/x-www-form-urlencoded"}
        return await self._got(self.client.post(form.action, content=encoded, headers=headers))

    async def _got(self, asked: Any) -> "Browser":
        self.response = await asked
        self.page = Parsed(self.response.text if "html" in self.response.headers.get("content-type", "") else "")
        return self

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def text(self) -> str:
        return self.page.text
