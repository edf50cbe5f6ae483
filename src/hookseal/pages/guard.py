"""What protects the pages: the headers of each answer, cookies, and proof that a form is one of ours. Pure.

A page of another site can neither read a page of ours nor send one of its forms: a browser says which site a request
comes from (`Sec-Fetch-Site`, or `Origin`), and a form has a token that only a page for the same visitor has. The token
is made of a random cookie, so that any process can check it.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

FORM_COOKIE: Final = "hookseal-form"
RANDOM_BYTES: Final = 16
_PLAIN_LOOPBACK: Final = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?")
_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_TOKEN_BYTES: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a browser sees the pages: the origin, the path under which they are, and who may frame them."""

    origin: str
    root: str
    frames: tuple[str, ...] = ()

    @property
    def is_secure(self) -> bool:
        """Whether cookies are for https alone: always, but over plain http on this machine."""
        return not _PLAIN_LOOPBACK.fullmatch(self.origin)

    def cookie_name(self, name: str) -> str:
        """Return the name of the cookie. With the prefix a browser takes it only over https and of this host."""
        return f"__Host-{name}" if self.is_secure else name

    def cookie(self, name: str, value: str, *, seconds: int) -> str:
        """Return the header `Set-Cookie`: no script reads it, and it is not sent with requests of other sites.

        In a frame of another site a browser sends only cookies with `SameSite=None`; `Partitioned` keeps it to that
        site, and the token of each form protects it.
        """
        secure = "; Secure" if self.is_secure else ""
        same_site = "None; Partitioned" if self.frames and self.is_secure else "Lax"
        return f"{self.cookie_name(name)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"


def site_of(request: Request, *, url: str | None, frames: tuple[str, ...]) -> Site:
    """Return where the browser sees the pages: at the given url, else where the server says that the request came."""
    if url is not None:
        parts = urlsplit(url)
        return Site(origin=f"{parts.scheme}://{parts.netloc}", root=parts.path.rstrip("/"), frames=frames)
    origin = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return Site(origin=origin, root=request.scope.get("root_path", "").rstrip("/"), frames=frames)


def headers(site: Site, image: str | None) -> dict[str, str]:
    """Return the headers of every page: nothing is loaded but our own style and one image, and nothing is kept.

    `image` is the origin of a logo elsewhere. In a frame a script of ours tells the height; else there is none.
    """
    ancestors = " ".join(site.frames) if site.frames else "'none'"
    images = "'self'" if image is None else f"'self' {image}"
    scripts = "script-src 'self'; " if site.frames else ""
    policy = (
        f"default-src 'none'; {scripts}style-src 'self'; img-src {images}; form-action 'self'; base-uri 'none'; "
        f"frame-ancestors {ancestors}"
    )
    refused_frames = {} if site.frames else {"x-frame-options": "DENY"}
    return {
        "cache-control": "no-store",
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        **refused_frames,
    }


def is_own(headers: Mapping[str, str], site: Site) -> bool:
    """Return whether a page of this origin sends the request, or a person. A browser says so in one of two headers."""
    fetched_by = headers.get("sec-fetch-site")
    if fetched_by is not None:
        return fetched_by in {"same-origin", "none"}
    return headers.get("origin") == site.origin


def kept(value: str | None) -> str | None:
    """Return the value of the cookie for forms, None if it is not one of ours."""
    return value if value is not None and _RANDOM.fullmatch(value) else None


def drawn(random: bytes) -> str:
    """Return a value for the cookie for forms."""
    return _text(random)


def token(cookie: str, tenant: str | None, actor: str) -> str:
    """Return the token of the forms that this visitor gets in this browser."""
    message = f"{tenant or ''}\n{actor}".encode()
    return _text(hmac.digest(cookie.encode(), message, "sha256")[:_TOKEN_BYTES])


def is_token(given: str, expected: str) -> bool:
    """Return whether the token of a form is the expected one, in a time that does not depend on it."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")
