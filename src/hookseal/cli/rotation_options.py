"""The options of the commands of rotation, and what their values mean."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.cli.secret_files import read_secret_text
from hookseal.config.settings import Settings
from hookseal.ground.errors import Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.overlap import MAX_OVERLAP_SECONDS, require_overlap
from hookseal.secrets.signer import generate_signing_secret

_ROTATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LEADS: Final = ("previous", "current")
_OVERLAP_HELP: Final = (
    f"How long both secrets sign, 0 to {MAX_OVERLAP_SECONDS} seconds; 0 revokes every older one. "
    "Default: SECRETS_ROTATION_OVERLAP_SECONDS."
)
_OUT_HELP: Final = "Write the secret to this new file (mode 0600); of ed25519 the public key, which receivers get."

Overlap = Annotated[int | None, typer.Option(help=_OVERLAP_HELP)]
RotationId = Annotated[str | None, typer.Option(help="Asked again with this id, it answers the same.")]
Expected = Annotated[int | None, typer.Option(help="Change it only if it is at this generation.")]
NewScheme = Annotated[Scheme | None, typer.Option(help="Sign in this scheme from now on.")]
NewAlgorithm = Annotated[Algorithm | None, typer.Option(help="Sign with this algorithm from now on.")]
Lead = Annotated[str | None, typer.Option(help="x-webhook: whose signature the plain header has.")]
SecretFile = Annotated[str | None, typer.Option(help="Sign with this secret, not a fresh one; - is stdin.")]
SecretOut = Annotated[Path | None, typer.Option(help=_OUT_HELP)]
PrintSecret = Annotated[bool, typer.Option("--print-secret", help="Print it even to a pipe or as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Even if an overlap runs: its previous secret retires.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for claims that began before.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Afterwards ask the receiver, by two pings, whether it has switched.")
]


def overlap_seconds(settings: Settings, seconds: int | None) -> int:
    """Return how long the overlap is, that of the settings if nothing was said. Raises `Malformed`."""
    return settings.secrets.rotation_overlap_seconds if seconds is None else require_overlap(seconds)


def new_secret(source: str | None, algorithm: Algorithm | None) -> SecretMaterial:
    """Return the secret in a file, or on standard input for `-`; without one a fresh one. Raises as it is read."""
    if source is None:
        return generate_signing_secret(algorithm or Algorithm.HMAC)
    return SecretMaterial(read_secret_text(source).encode())


def require_rotation_id(text: str | None) -> str | None:
    """Return the id if it is one, or none was given. Raises `Malformed`."""
    if text is not None and not _ROTATION_ID.fullmatch(text):
        raise Malformed(
            "rotation id must be 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'", field="rotation_id"
        )
    return text


def require_lead(text: str | None) -> str | None:
    """Return who leads, or None if that stays as it is. Raises `Malformed`."""
    if text is not None and text not in _LEADS:
        raise Malformed("lead must be previous or current", field="lead")
    return text
