"""Governance: requirements, the tests that prove them, and the page that lists both."""
