"""Schema: the tables, made by forward migrations, and the revision this version needs."""
