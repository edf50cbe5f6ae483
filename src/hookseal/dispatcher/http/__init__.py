"""Sends one POST to an address that may be dialled: connections, time limits, and limits for the answer."""
