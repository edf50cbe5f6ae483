"""The page on the transport states the limits of the code."""

import re
from pathlib import Path

from hookseal.dispatcher.core import endpoint_rules, prepare
from hookseal.dispatcher.http import connection, egress_guard, exchange
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.secrets.extras import tls_context
from hookseal.worker import health, ring_handler

PAGE = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "docs" / "transport.md").read_text(encoding="utf-8"))


def test_the_page_states_every_limit() -> None:
    """The page states every limit of the code, in the expected words."""
    limits = Limits()
    sentences = [
        f"or the first byte on a kept connection) | {prepare.START_WITHIN_SECONDS:g} s after the claim |",
        f"| resolve the name | {limits.name_seconds:g} s |",
        f"| connect, with an egress proxy and its tunnel included | {limits.connect_seconds:g} s |",
        f"| TLS handshake | {limits.handshake_seconds:g} s |",
        f"| body, once the status came | {limits.body_seconds:g} s |",
        f"at most {limits.look_ups_each} of one tenant at a time, and {limits.look_ups} in all",
        f"An answer is known for {egress_guard.KNOWN_SECONDS:g} s;",
        f"of a name with many addresses the first {egress_guard.MAX_ADDRESSES} count",
        f"kept for {limits.idle_seconds:g} s, at most {limits.idle_each} to one host and port and {limits.idle:,} in",
        f"| body read | {exchange.RESPONSE_BYTES_READ:,} bytes;",
        f"| body kept | {exchange.SNIPPET_BYTES:,} bytes,",
        f"| all of an answer, interim ones and what chunks take included | {connection.ANSWER_BYTES:,} bytes |",
        f"| interim replies (1xx) before the answer | {connection.INTERIM_REPLIES} |",
        f"| what chunks take beside what they hold | {connection.CHUNK_BYTES:,} bytes:",
        f"| {connection.TURN_BYTES:,} bytes of all answers together, in slices of {connection.SLICE_BYTES:,} bytes |",
        f"| `Retry-After` | {exchange.RETRY_AFTER_VALUES} values of {exchange.RETRY_AFTER_CHARACTERS} characters |",
        f"It keeps as many as fit into {tls_context.MOST_BYTES >> 20} MiB",
        f"counted as {tls_context.CONTEXT_BYTES >> 10} KiB",
        f"and {tls_context.CERTIFICATE_BYTES >> 10} KiB for each certificate",
        f"waits {tls_context.WAIT_SECONDS:g} s at most for its context,",
        f"and behind at most {tls_context.MOST_AT_ONCE - 1} others",
        f"less than `HOOKSEAL_CONCURRENCY` and {egress_guard.RESERVED_DESCRIPTORS} more.",
        f"Of the limit the last {egress_guard.RESERVED_DESCRIPTORS}, or half of it if it is small, are reserved",
        f"begins nothing for {ring_handler._FIRST_REST_SECONDS:g} s, twice as long each time while it lasts,",
        f"{ring_handler._LONGEST_REST_SECONDS:g} s at most.",
        f"within {health.CONNECTION_SECONDS:g} s, and holds {health.MOST_CONNECTIONS} connections.",
        f"({endpoint_rules.MIN_TIMEOUT_MS} to {endpoint_rules.MAX_TIMEOUT_MS})",
    ]

    assert [] == [sentence for sentence in sentences if sentence not in PAGE]
