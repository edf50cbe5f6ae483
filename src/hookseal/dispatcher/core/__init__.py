"""Core: what a delivery is and what is decided about it. It opens no connection and knows no library."""
