"""The options for the headers of an endpoint, and for its client certificate and certificate authorities."""

from typing import Annotated, Final

import typer

from hookseal.cli.shared.input_files import read_input
from hookseal.cli.shared.output import printable
from hookseal.cli.shared.secret_files import private_bytes
from hookseal.errors import Malformed
from hookseal.ground.wire import header_name, require_headers
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras.tls_identity import (
    MAX_AUTHORITIES_BYTES,
    MAX_CERTIFICATE_BYTES,
    MAX_KEY_BYTES,
    ClientCertificate,
    TlsChange,
    TlsIdentity,
    authorities,
    client_certificate,
)

_MAX_BYTES: Final = 65_536  # more than the limits of all headers together
_FILE_HELP: Final = "A private file with headers, one 'K: V' a line; - is stdin."

Header = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'K: V'",
        help="A header to add to its requests. Repeatable. Other users of this machine can read arguments: "
        "prefer --headers-file.",
    ),
]
HeadersFile = Annotated[str | None, typer.Option(metavar="FILE", help=_FILE_HELP)]
AllHeadersFile = Annotated[str | None, typer.Option(metavar="FILE", help=f"{_FILE_HELP} They replace all its headers.")]
RemoveHeader = Annotated[list[str] | None, typer.Option(metavar="K", help="Remove this header. Repeatable.")]
_CERT: Final = "client_cert"

ClientCert = Annotated[
    str | None, typer.Option(metavar="F", help="The client certificate for its requests, with its chain (PEM).")
]
ClientKey = Annotated[str | None, typer.Option(metavar="F", help="A private file with the key of --client-cert (PEM).")]
CaFile = Annotated[
    str | None,
    typer.Option(
        metavar="F", help="The only certificate authorities (PEM) that it trusts, in place of the usual ones."
    ),
]
RemoveClientCert = Annotated[bool, typer.Option("--remove-client-cert", help="Send no client certificate from now on.")]
RemoveCa = Annotated[bool, typer.Option("--remove-ca", help="Trust the usual certificate authorities again.")]


def read_headers(lines: list[str] | None, file: str | None) -> dict[str, SecretMaterial]:
    """Return the headers from the arguments and the file, names in lower case.

    Raises `Malformed`, which never contains a value, if a header may not be sent or is given twice; `Refused` if others
    may read the file.
    """
    given: dict[str, str] = {}
    for line in [*(lines or []), *_lines(file)]:
        spelled, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a header is given as 'K: V'", field="header")
        name = header_name(spelled)
        if name in given:
            raise Malformed(f"header {name} is given twice", field="header")
        given[name] = value.strip(" \t")
    require_headers(given)
    return {name: SecretMaterial(value.encode("ascii")) for name, value in given.items()}


def header_change(lines: list[str] | None, file: str | None, removed: list[str] | None) -> HeaderChange | None:
    """Return the change of the headers, None if no option was given.

    A file replaces all headers; an argument sets one and leaves the others. Raises as `read_headers` does, and
    `Malformed` if a header is both set and removed, or removed while a file replaces all.
    """
    if lines is None and file is None and removed is None:
        return None
    names = frozenset(map(header_name, removed or []))
    if names and file is not None:
        raise Malformed("--headers-file replaces all headers: leave out --remove-header", field="remove_header")
    given = read_headers(lines, file)
    for name in sorted(names & given.keys()):
        raise Malformed(f"header {name} is to be set and to be removed: give one of them", field="remove_header")
    return HeaderChange(given=given, removed=names, replaces_all=file is not None)


def _lines(file: str | None) -> list[str]:
    """Return the lines of the file that are not empty."""
    if file is None:
        return []
    raw = private_bytes(file, _MAX_BYTES + 1, field="headers_file")
    if len(raw) > _MAX_BYTES:
        raise Malformed(f"a file of headers has at most {_MAX_BYTES} bytes", field="headers_file")
    lines = [
        line.removesuffix("\r") for line in raw.decode("latin-1").split("\n")
    ]  # a value that is not ASCII is refused later
    filled = [line for line in lines if line.strip(" \t")]
    if not filled:  # a pipe that broke must not leave an endpoint without its headers
        raise Malformed("there is no header in the file: to remove one, give --remove-header", field="headers_file")
    return filled


def read_tls(client_cert: str | None, client_key: str | None, ca_file: str | None) -> TlsIdentity:
    """Return the TLS identity in these files, an empty one if no file is given.

    Raises `Malformed`, which never contains text of a file, and `Refused` if others may read the file of the key.
    """
    return TlsIdentity(
        client=_client(client_cert, client_key),
        authorities=() if ca_file is None else authorities(read_input(ca_file, MAX_AUTHORITIES_BYTES, field="ca_file")),
    )


def tls_change(files: tuple[str | None, str | None, str | None], removals: tuple[bool, bool]) -> TlsChange | None:
    """Return the change of the TLS identity, None if no option was given.

    `removals`: remove the client certificate, remove the authorities. Raises as `read_tls` does, and `Malformed` if
    one of them is both given and removed.
    """
    given, (remove_client_cert, remove_ca) = read_tls(*files), removals
    if given.is_empty and not remove_client_cert and not remove_ca:
        return None
    if given.client is not None and remove_client_cert:
        raise Malformed("the client certificate is to be given and to be removed", field="remove_client_cert")
    if given.authorities and remove_ca:
        raise Malformed("the authorities are to be given and to be removed", field="remove_ca")
    return TlsChange(
        client=given.client,
        authorities=given.authorities,
        without_client=remove_client_cert,
        without_authorities=remove_ca,
    )


def tls_lines(shown: object) -> list[str]:
    """Return one line for each certificate of a TLS identity."""
    if not isinstance(shown, dict):
        return []
    client = shown["client_certificate"]
    listed = [("client certificate", client)] if client is not None else []
    listed += [("authority", each) for each in shown["authorities"]]
    return [
        f"{name}: {printable(each['subject'] or '-')}, until {each['expires_at']}, sha256 {each['sha256']}"
        for name, each in listed
    ]


def _client(certificate: str | None, key: str | None) -> ClientCertificate | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Malformed("--client-cert and --client-key belong together: give both", field=_CERT)
    return client_certificate(
        read_input(certificate, MAX_CERTIFICATE_BYTES, field=_CERT),
        private_bytes(key, MAX_KEY_BYTES, field="client_key"),
    )
