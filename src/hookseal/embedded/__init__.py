"""Embedded parts: a PostgreSQL and a Valkey that live and die with the process that starts them.

For `hookseal demo`, `hookseal up` and the tests; never for production.
"""
