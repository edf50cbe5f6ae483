"""The pages of an installation: where a customer manages endpoints, and sees what was sent to them.

`app` is an ASGI application, to be mounted in that of a product under its sessions; `hookseal api` serves it at
`/portal`, for the visitors of a link.
"""

from hookseal.pages.application import Who, app
from hookseal.pages.look import Look
from hookseal.pages.page import Visitor

__all__ = ["Look", "Visitor", "Who", "app"]
