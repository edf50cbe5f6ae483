"""PostgreSQL: connections, statements, what its errors mean, and the schema."""
