"""The guides of docs/: their commands and programs run as written."""
