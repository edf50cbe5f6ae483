"""Governance that cannot lie: requirements, the tests that prove them, and the page that says so."""
