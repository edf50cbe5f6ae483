"""Client: the Publisher, for producers in Python."""

from hookseal.client.many import Event
from hookseal.client.publisher import Published, PublishedMany, Publisher

__all__ = ["Event", "Published", "PublishedMany", "Publisher"]
