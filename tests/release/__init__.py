"""What `make release` refuses, and what it writes."""
