"""A `hookseal worker` with a heartbeat every half second, so that no test waits until a dead one is taken for dead."""

import sys

from hookseal.cli.main import main
from hookseal.worker import heartbeat

if __name__ == "__main__":
    heartbeat.BEAT_SECONDS = 0.5  # type: ignore[misc]
    heartbeat._DOUBT_SECONDS = 1.5  # type: ignore[misc]
    sys.argv[0] = "hookseal"
    main()
