"""`make soak`: whether the database stays bounded, and claims as fast, while deliveries come, end and leave."""
