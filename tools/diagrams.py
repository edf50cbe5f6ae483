"""`make docs-site`: draws each `docs/images/NAME.d2` as `NAME.svg` beside it, with D2 (https://d2lang.com).

Both are committed, so that the pictures show on the page of the repository, too. A picture names the digest of its
text: it is drawn again only when the text has changed, and a test finds one that is stale.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
# Neutral colours in light, and in dark if the page or the system is dark.
_LOOK: Final = ("--theme", "0", "--dark-theme", "200", "--pad", "16", "--scale", "1", "--layout", "elk")


def mark(text: str) -> str:
    """Return the last line of the picture that is drawn of this text."""
    return f"<!-- drawn of the text with SHA-256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def stale() -> Iterator[Path]:
    """Yield each text whose picture is missing, or is that of another text."""
    for source in sorted(FOLDER.glob("*.d2")):
        picture = source.with_suffix(".svg")
        text = source.read_text(encoding="utf-8")
        if not picture.is_file() or not picture.read_text(encoding="utf-8").endswith(mark(text)):
            yield source


def main() -> None:
    """Draw what is stale."""
    program = Path(sys.executable).with_name("d2")
    for source in stale():
        text = source.read_text(encoding="utf-8")
        drawn = subprocess.run([program, *_LOOK, "-", "-"], input=text, capture_output=True, text=True, check=False)
        if drawn.returncode:
            sys.exit(f"{source.name}: {drawn.stderr.strip()}")
        source.with_suffix(".svg").write_text(f"{drawn.stdout.rstrip()}\n{mark(text)}", encoding="utf-8")
        print(f"drew {source.stem}")


if __name__ == "__main__":
    main()
