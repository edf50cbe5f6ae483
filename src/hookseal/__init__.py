"""hookseal delivers webhooks, signed with secrets that are sealed, rotated and never in the clear."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hookseal.ground.version import VERSION
from hookseal.queue.serializer import job_deserializer, job_serializer

if TYPE_CHECKING:  # loading it takes the libraries of PostgreSQL and Redis along, which a receiver has no use for
    from hookseal.client import Published, Publisher

__all__ = ["Published", "Publisher", "__version__", "job_deserializer", "job_serializer"]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    if name in {"Published", "Publisher"}:
        return getattr(import_module("hookseal.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
