"""The options that say who we are to an endpoint's receiver, and who vouches for it: certificates and a private key."""

from typing import Annotated, Final

import typer

from hookseal.cli.input_files import read_input
from hookseal.cli.output import printable
from hookseal.cli.secret_files import private_bytes
from hookseal.ground.errors import Malformed
from hookseal.secrets.endpoint_tls import TlsChange
from hookseal.secrets.tls_identity import (
    MAX_AUTHORITIES_BYTES,
    MAX_CERTIFICATE_BYTES,
    MAX_KEY_BYTES,
    ClientCertificate,
    TlsIdentity,
    authorities,
    client_certificate,
)

_CERT: Final = "client_cert"

ClientCert = Annotated[
    str | None, typer.Option(metavar="F", help="The certificate that hookseal shows it, PEM, then its chain.")
]
ClientKey = Annotated[str | None, typer.Option(metavar="F", help="The key of --client-cert: PEM in a private file.")]
CaFile = Annotated[
    str | None,
    typer.Option(metavar="F", help="Certificates, PEM, that alone vouch for it, in place of the usual ones."),
]
RemoveClientCert = Annotated[bool, typer.Option("--remove-client-cert", help="Show no certificate from now on.")]
RemoveCa = Annotated[bool, typer.Option("--remove-ca", help="Trust the usual certificates again.")]


def read_tls(client_cert: str | None, client_key: str | None, ca_file: str | None) -> TlsIdentity:
    """Return what these files hold; an empty identity if none was named.

    Raises `Malformed`, never with what a file holds, and `Refused` if others may read the file of the key.
    """
    return TlsIdentity(
        client=_client(client_cert, client_key),
        authorities=() if ca_file is None else authorities(read_input(ca_file, MAX_AUTHORITIES_BYTES, field="ca_file")),
    )


def tls_change(files: tuple[str | None, str | None, str | None], removals: tuple[bool, bool]) -> TlsChange | None:
    """Return how the identity changes, None if nothing was said of it.

    `removals` says whether the client certificate is to go, and whether the authorities are. Raises as `read_tls`
    does, and `Malformed` if the same is to be given and removed.
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
    """Return what is shown of an identity, a line for each certificate."""
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
