"""The stores: one implementation of `SecretStore` a module."""
