"""`make soak`: whether database and worker stay bounded, and claims as fast, while deliveries come, end and leave."""
