"""`make recording`: what a terminal shows of `hookseal up`, a publish and the request, as docs/recording.svg.

Each line is what the commands printed in this run; only the secret and the paths of this machine are left out.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = ROOT / "docs" / "recording.svg"
HOOKSEAL: Final = Path(sys.executable).with_name("hookseal")
_WIDTH: Final = 132
_PATIENCE_SECONDS: Final = 120.0
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture makes no request to another server
_EXPORT: Final = re.compile(r"^(?:export )?(\w+)='?([^'\n]*)'?;?$", re.MULTILINE)


def main() -> None:
    """Record, and write the picture. Nothing that was started is left running."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as folder, _up(Path(folder)) as up:
        log, ready = up
        _show(console, "hookseal up", ready)
        environment = os.environ | dict(_EXPORT.findall(_run(Path(folder), os.environ, "up", "env")))
        _show(console, 'eval "$(hookseal up env)"', "")
        url = re.search(r"http://127\.0\.0\.1:\d+/", ready)
        assert url is not None, ready  # noqa: S101 -- `up` prints where its receiver is
        for arguments in (
            ("endpoint", "add", "--tenant", "acme", "--url", url.group(), "--event-type", "*"),
            ("publish", "--tenant", "acme", "--event-type", "invoice.paid", "--data", '{"id": 1}'),
        ):
            _show(console, _command(arguments), _run(Path(folder), environment, *arguments))
        _wait_for(log, "invoice.paid")
        _show(console, "# in the first terminal", log.read_text(encoding="utf-8").removeprefix(ready))
        _show(console, "hookseal delivery list", _run(Path(folder), environment, "delivery", "list"))
    picture = console.export_svg(title="hookseal")
    PICTURE.write_text(_FONTS.sub("", picture), encoding="utf-8")


@contextmanager
def _up(folder: Path) -> Iterator[tuple[Path, str]]:
    """Run `hookseal up` in this folder; yield the file with what it prints, and what it has printed when it is up."""
    log = folder / "up.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([HOOKSEAL, "up"], cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_for(log, "hookseal up env")
        yield log, log.read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait()


def _wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while text not in log.read_text(encoding="utf-8"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"`hookseal up` has not printed {text!r}: {log.read_text(encoding='utf-8')}")
        time.sleep(0.1)


def _run(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [HOOKSEAL, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def _command(arguments: tuple[str, ...]) -> str:
    return "hookseal " + " ".join(f"'{each}'" if re.search(r"[^\w./:-]", each) else each for each in arguments)


def _show(console: Console, command: str, printed: str) -> None:
    printed = re.sub(rf"{HOOKSEAL.parent}|{tempfile.gettempdir()}/\w+", "/app", printed)
    console.print(Text(f"$ {command}", style="bold green"))
    console.print(Text(printed.rstrip()))
    console.print()


if __name__ == "__main__":
    main()
