"""Client: what a producer in Python publishes with."""

from hookseal.client.publisher import Published, Publisher

__all__ = ["Published", "Publisher"]
