"""Schema: the tables are made once, whoever asks, and only as far as the role may."""
