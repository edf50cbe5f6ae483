"""A receiver that needs only the standard library: it answers each POST with 204, and prints it as a line of JSON.

`python receiver.py CERTIFICATE PORT`: the file has the certificate and its key. It runs on this machine and in a
container of the image. Who reads the lines verifies the signatures.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Prints each request."""

    def do_POST(self) -> None:
        """Answer 204, after the request was printed."""
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        print(json.dumps({"headers": headers, "body": body.decode()}), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Print nothing else."""


def main(certificate: str, port: int) -> None:
    """Serve until the process ends."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # noqa: S104 -- in a container that is the only way
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
