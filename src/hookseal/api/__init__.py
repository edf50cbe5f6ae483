"""The HTTP API of an installation, in the dialect of Svix: each call is one method of an `Admin` or a `Publisher`.

`app` is an ASGI application, to be mounted in that of a product; `hookseal api` serves it alone.
"""

from hookseal.admin import Scope
from hookseal.api.access import ALL, Access
from hookseal.api.application import app

__all__ = ["ALL", "Access", "Scope", "app"]
