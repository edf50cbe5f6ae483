"""Client: the Publisher, for producers in Python."""

from hookseal.client.publisher import Event, Published, PublishedMany, Publisher

__all__ = ["Event", "Published", "PublishedMany", "Publisher"]
