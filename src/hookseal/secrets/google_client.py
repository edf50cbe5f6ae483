"""What the clients of Google Secret Manager and Cloud KMS have in common: channel, credentials and logging."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from hookseal.secrets import google_credentials

RECONNECT_SECONDS: Final = 1.0  # the longest wait of a channel between two tries to connect, give or take a fifth
# By default gRPC waits up to two minutes between tries, and calls fail at once meanwhile, although the server is back.
# The waits are shorter than the time that an attempt has for its secrets, so that the first one afterwards succeeds.
OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_500),  # how long one try may take, with TLS
    ("grpc.max_reconnect_backoff_ms", int(RECONNECT_SECONDS * 1_000)),
)

_PLUGIN: Final = "grpc._plugin_wrapping"  # logs a traceback for credentials that fail, which the call raises as well


async def transport(
    kind: Any, channel: Callable[..., Any] | None, *, loggers: Iterable[str], may_be_plain: bool = False
) -> Any:
    """Return the transport of this kind, with the credentials of the environment or on the channel of a test.

    After an outage its channel connects again within `RECONNECT_SECONDS`. What `loggers` log below `INFO`, which may
    contain requests and answers, is not logged any more. Raises what `google_credentials.found` raises.
    """
    logging.getLogger(_PLUGIN).setLevel(logging.CRITICAL + 1)
    for name in loggers:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    if channel is not None:
        return kind(channel=channel(options=OPTIONS))
    # Another thread, because it may ask the machine's server of metadata, which takes 12 seconds if there is none.
    credentials = await asyncio.to_thread(partial(google_credentials.found, may_be_plain=may_be_plain))

    def connected(*arguments: Any, options: Iterable[tuple[str, Any]] = (), **more: Any) -> Any:
        return kind.create_channel(*arguments, options=[*options, *OPTIONS], **more)

    return kind(credentials=credentials, channel=connected)
