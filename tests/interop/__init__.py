"""Other people's libraries verify what hookseal sends."""
