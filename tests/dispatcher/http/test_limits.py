"""The page on the transport states the limits of the code."""

import re
from pathlib import Path

from hookseal.dispatcher import endpoint_rules, prepare
from hookseal.dispatcher.http import connection, egress_guard, reading, resolver, turns
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.secrets.extras import tls_context
from hookseal.worker import probe_port, ring_handler

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
        f"An answer is known for {resolver.KNOWN_SECONDS:g} s;",
        f"of a name with many addresses the first {resolver.MAX_ADDRESSES} count",
        f"kept for {limits.idle_seconds:g} s, at most {limits.idle_each} to one host and port and {limits.idle:,} in",
        f"| body read | {reading.RESPONSE_BYTES_READ:,} bytes;",
        f"| body kept | {reading.SNIPPET_BYTES:,} bytes,",
        f"| all of an answer, interim ones and what chunks take included | {connection.ANSWER_BYTES:,} bytes |",
        f"| interim replies (1xx) before the answer | {connection.INTERIM_REPLIES} |",
        f"| what chunks take beside what they hold | {connection.CHUNK_BYTES:,} bytes:",
        f"| {turns.TURN_BYTES:,} bytes of all answers together, in slices of {turns.SLICE_BYTES:,} bytes |",
        f"| `Retry-After` | {reading.RETRY_AFTER_VALUES} values of {reading.RETRY_AFTER_CHARACTERS} characters |",
        f"It keeps as many as fit into {tls_context.MOST_BYTES >> 20} MiB",
        f"counted as {tls_context.CONTEXT_BYTES >> 10} KiB",
        f"and {tls_context.CERTIFICATE_BYTES >> 10} KiB for each certificate",
        f"waits {tls_context.WAIT_SECONDS:g} s at most for its context,",
        f"and behind at most {tls_context.MOST_AT_ONCE - 1} others",
        f"less than `HOOKSEAL_CONCURRENCY` and {egress_guard.RESERVED_DESCRIPTORS} more.",
        f"Of the limit the last {egress_guard.RESERVED_DESCRIPTORS}, or half of it if it is small, are reserved",
        f"begins nothing for {ring_handler._FIRST_REST_SECONDS:g} s, twice as long each time while it lasts,",
        f"{ring_handler._LONGEST_REST_SECONDS:g} s at most.",
        f"within {probe_port.CONNECTION_SECONDS:g} s, and holds {probe_port.MOST_CONNECTIONS} connections.",
        f"({endpoint_rules.MIN_TIMEOUT_MS} to {endpoint_rules.MAX_TIMEOUT_MS})",
    ]

    assert [] == [sentence for sentence in sentences if sentence not in PAGE]
