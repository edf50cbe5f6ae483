"""Config: the environment, turned once into frozen values."""
