"""The socket of the HTTP API, opened once, also for several processes; and the url of a socket that listens."""

import socket
from typing import Final

from hookseal.config.settings import Settings
from hookseal.errors import Unavailable

BACKLOG: Final = 256  # connections that the system queues until they are accepted


def of_the_api(settings: Settings) -> socket.socket:
    """Return a socket that listens where the settings say. Raises `Unavailable`."""
    host, port = settings.api.host, settings.api.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"the API cannot listen on {host}:{port} ({type(error).__name__})",
            advice="free the port or set HOOKSEAL_API_PORT",
        ) from None


def url_of(server: socket.socket) -> str:
    """Return the base url of a socket that listens."""
    host, port = server.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
