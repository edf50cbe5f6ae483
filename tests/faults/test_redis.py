"""Redis cut off, killed, frozen, full and refused: a worker survives, says so, resumes by itself and loses nothing."""

EVENTS = 10
# What a worker says to Redis, by the words that only it says.
SAYINGS = {
    "ring": b"PSETEX\r\n$",
    "look": b"ZRANGEBYSCORE",
    "take": b"WATCH",
    "begin": b"INCR",
    "finish": b"ZREM",
}
