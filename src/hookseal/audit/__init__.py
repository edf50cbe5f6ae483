"""Audit: who changed what, appended in the transaction of the change and chained, so that it can be verified."""
