"""Backup and restore with real dumps, by the steps of docs/restore.md."""
