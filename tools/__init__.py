"""What the house needs to check itself; nothing here is part of the product."""
