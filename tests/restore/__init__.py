"""Backup and restore, walked through with real dumps as docs/restore.md says."""
