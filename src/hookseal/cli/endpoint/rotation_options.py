"""The options of the commands of rotation, and the values that they give."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hookseal.cli.shared.secret_files import read_secret_text
from hookseal.config.settings import Settings
from hookseal.errors import Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.overlap import MAX_OVERLAP_SECONDS, require_overlap
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import require_id

_LEADS: Final = ("previous", "current")
_OVERLAP_HELP: Final = (
    f"How long both secrets sign, 0 to {MAX_OVERLAP_SECONDS} seconds; 0 revokes every older secret. "
    "Default: SECRETS_ROTATION_OVERLAP_SECONDS."
)
_OUT_HELP: Final = "Write the secret to this new file (mode 0600); for ed25519 it gets the public key."

Overlap = Annotated[int | None, typer.Option(help=_OVERLAP_HELP)]
RotationId = Annotated[
    str | None,
    typer.Option(help="An id for this rotation: the same id again rotates nothing, and prints the same answer."),
]
Expected = Annotated[int | None, typer.Option(help="Make the change only if the endpoint is at this generation.")]
NewScheme = Annotated[
    Scheme | None, typer.Option(metavar="NAME", help="standard or x-webhook: the scheme from now on.")
]
NewAlgorithm = Annotated[
    Algorithm | None, typer.Option(metavar="NAME", help="hmac or ed25519: the algorithm from now on.")
]
Lead = Annotated[
    str | None, typer.Option(help="x-webhook: which secret signs the plain header in an overlap, previous or current.")
]
SecretFile = Annotated[
    str | None, typer.Option(help="A private file with the secret to use, in place of a new one; - is stdin.")
]
SecretOut = Annotated[Path | None, typer.Option(help=_OUT_HELP)]
PrintSecret = Annotated[bool, typer.Option("--print-secret", help="Print the secret even to a pipe or as JSON.")]
Force = Annotated[
    bool, typer.Option("--force", help="Rotate even while an overlap runs, and retire its previous secret.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for requests from before the change.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Then send the receiver two pings, which show whether it has switched.")
]


def overlap_seconds(settings: Settings, seconds: int | None) -> int:
    """Return the overlap in seconds, by default that of the settings. Raises `Malformed`."""
    return settings.secrets.rotation_overlap_seconds if seconds is None else require_overlap(seconds)


def new_secret(source: str | None, algorithm: Algorithm | None) -> SecretMaterial:
    """Return the secret in a file, or on standard input for `-`; without a file a new one.

    Raises as `read_secret_text` does.
    """
    if source is None:
        return generate_signing_secret(algorithm or Algorithm.HMAC)
    return SecretMaterial(read_secret_text(source).encode())


def require_rotation_id(text: str | None) -> str | None:
    """Return the id if it is valid, or None if none was given. Raises `Malformed`."""
    return None if text is None else require_id(text)


def require_lead(text: str | None) -> str | None:
    """Return which secret leads, or None to change nothing. Raises `Malformed`."""
    if text is not None and text not in _LEADS:
        raise Malformed("lead must be previous or current", field="lead")
    return text
