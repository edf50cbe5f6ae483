"""Everything in a Redis database."""

from redis.asyncio import Redis


async def contents(url: str) -> dict[bytes, object]:
    """Return every key with its value: bytes, or for a sorted set its members with their scores."""
    found: dict[bytes, object] = {}
    async with Redis.from_url(url) as client:
        async for key in client.scan_iter(count=1000):
            kind = await client.type(key)
            if kind == b"none":  # a worker has taken it meanwhile
                continue
            assert kind in {b"string", b"zset"}, f"a key of another kind: {kind!r}"
            is_text = kind == b"string"
            found[key] = await client.get(key) if is_text else await client.zrange(key, 0, -1, withscores=True)
    return found
