"""The password of an embedded server: drawn once for its state, kept in a file that only we may read."""

import secrets
from pathlib import Path

from hookseal.embedded.folders import write_private


def kept_password(file: Path) -> str:
    """Return the password in the file; a new one, written there first, if there is no such file."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text(encoding="utf-8")
