"""hookseal delivers webhooks, signed with secrets that are sealed, rotated and never in the clear."""

from importlib.metadata import version

from hookseal.queue.serializer import job_deserializer, job_serializer

__all__ = ["__version__", "job_deserializer", "job_serializer"]
__version__ = version("hookseal")
