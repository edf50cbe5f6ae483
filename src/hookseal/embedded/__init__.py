"""Embedded servers: a PostgreSQL and a Valkey that start with a process and end with it.

For `hookseal demo`, `hookseal up` and the tests; never for production.
"""
