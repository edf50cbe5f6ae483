"""Producers: publish through a connection of a framework or driver, inside its own transaction.

Each module is for one library, and imports it: `hookseal.producers.sqlalchemy`, `django`, `psycopg`, and `dbapi` for
any other driver. `schema` installs the schema from a migration of an application.
"""

from hookseal.producers.call import EventFields, PublishedEvent

__all__ = ["EventFields", "PublishedEvent"]
