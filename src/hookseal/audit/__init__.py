"""Audit: a log of who changed what, written in the transaction of the change and chained by MACs for verification."""
