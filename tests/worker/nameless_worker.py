"""A `hookseal worker` that gets no answer from name servers while the file of the variable NAMELESS exists."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from hookseal.cli.main import main

if __name__ == "__main__":
    outage = Path(os.environ.pop("NAMELESS"))
    look_up = socket.getaddrinfo

    def answered(*args: Any, **kwargs: Any) -> Any:
        """Look the name up, or fail as the system does if no name server answers."""
        if outage.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(*args, **kwargs)

    socket.getaddrinfo = answered
    sys.argv[0] = "hookseal"
    main()
