"""`make smoke`: rehearses the release of the commit, and uses its wheel and its source distribution as users do."""

import asyncio
import tempfile
from pathlib import Path

from tools.smoke import released

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(released.try_out(Path(folder)))
