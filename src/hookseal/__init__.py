"""hookseal delivers webhooks, signed with secrets that are sealed, rotated and never in the clear."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each is loaded when it is asked for: a receiver has no use for them, and a command begins at once
    from hookseal import errors
    from hookseal.admin import Admin
    from hookseal.client import Event, Published, PublishedMany, Publisher
    from hookseal.queue.serializer import job_deserializer, job_serializer

    __version__: str

__all__ = [
    "Admin",
    "Event",
    "Published",
    "PublishedMany",
    "Publisher",
    "__version__",
    "errors",
    "job_deserializer",
    "job_serializer",
]

_PLACES = {
    "Admin": ("hookseal.admin", "Admin"),
    "Event": ("hookseal.client", "Event"),
    "Published": ("hookseal.client", "Published"),
    "PublishedMany": ("hookseal.client", "PublishedMany"),
    "Publisher": ("hookseal.client", "Publisher"),
    "__version__": ("hookseal.ground.version", "VERSION"),
    "job_deserializer": ("hookseal.queue.serializer", "job_deserializer"),
    "job_serializer": ("hookseal.queue.serializer", "job_serializer"),
}


if not TYPE_CHECKING:  # a type checker has the names above, and refuses every other one

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return import_module("hookseal.errors")
        if name in _PLACES:
            module, of = _PLACES[name]
            return globals().setdefault(name, getattr(import_module(module), of))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what is public, so that completion offers it before it is loaded."""
    return sorted(__all__)
