"""What both trials of the image need: a receiver with a certificate, published events, and what arrived of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from standardwebhooks import Webhook

from tests.deploy.files import image
from tests.doubles import certificates
from tools.image.engine import CommandFailed

T = TypeVar("T")

RECEIVER: Final = Path(__file__).with_name("receiver.py")
CHECK: Final = tuple(image().healthcheck)  # what the image and the exec probes of a cluster run
READY_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.5


class Certificate(NamedTuple):
    """The file of a certificate with its key, and that of the authority that issued it."""

    shown: Path
    authority: Path


def certificate(folder: Path, *names: str) -> Certificate:
    """Write a certificate for these names, which a worker trusts by the file of its authority."""
    vouching = certificates.authority()
    made = Certificate(folder / "certificate.pem", folder / "authority.pem")
    made.shown.write_bytes(certificates.issued(*names, by=vouching).both)
    made.authority.write_text(vouching.pem, encoding="ascii")
    for file in made:
        file.chmod(0o644)  # the user of the image reads it, and the folder keeps other users out
    return made


@contextmanager
def receiving(shown: Path, port: int, lines: Path) -> Iterator[None]:
    """Run the receiver on this machine for the length of the block; its lines go to the file."""
    with (
        lines.open("wb") as out,
        subprocess.Popen([sys.executable, str(RECEIVER), str(shown), str(port)], stdout=out) as process,
    ):
        try:
            yield
        finally:
            process.kill()


def verified(lines: str, secret: str) -> list[str]:
    """Return the ids of the deliveries that these lines of the receiver are, each verified by a public library.

    Raises `WebhookVerificationError` for a request that is not signed with this secret.
    """
    found = []
    for line in lines.splitlines():
        _, brace, rest = line.partition("{")  # compose writes the name of the service before each line
        if brace and '"headers"' in rest:
            request = json.loads(brace + rest)
            Webhook(secret).verify(request["body"], request["headers"])
            found.append(request["headers"]["webhook-id"])
    return found


def eventually(look: Callable[[], T | None], what: str, seconds: float = READY_SECONDS) -> T:
    """Return the first value of `look` that is true. Raises `CommandFailed` with the last reason if there is none."""
    until, why = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except CommandFailed as error:
            why = f": {error}"
        time.sleep(_LOOK_SECONDS)
    raise CommandFailed(f"{what} within {seconds:.0f} s{why}")


def private(folder: Path, name: str, lines: dict[str, str]) -> Path:
    """Write variables into a file that only this user may read, and return its path."""
    file = folder / name
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as written:
        written.writelines(f"{key}={value}\n" for key, value in lines.items())
    return file
