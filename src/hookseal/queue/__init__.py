"""Queue: the arq queue in Redis, its serializer, and the rings in it."""
