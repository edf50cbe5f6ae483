"""Core: refs, sealed records, signatures, and whether a row may be trusted. It opens no connection."""
