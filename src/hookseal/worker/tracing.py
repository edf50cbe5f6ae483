"""Whether this process makes traces, and of which kind: with the extra `otel` by the SDK of OpenTelemetry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

from hookseal.config.settings import Settings
from hookseal.dispatcher.core.ports import Parts
from hookseal.errors import ConfigError


@asynccontextmanager
async def tracer_provider(settings: Settings, *, service: str, instance: str, log: Any) -> AsyncIterator[Any]:
    """Yield a tracer provider of OpenTelemetry, or None if the settings ask for none.

    At the end spans that wait are sent, within two seconds. Raises `ConfigError` if packages are missing, or if
    the SDK refuses one of its variables.
    """
    if not settings.traces:
        yield None
        return
    async with _spans().provided(service, instance, log=log) as provider:
        yield provider


def traced(parts: Parts, provider: Any) -> Parts:
    """Return the parts with a span for each claim and attempt, made by this tracer provider; None: as they are."""
    if provider is None:
        return parts
    spans = _spans().Spans(provider)
    return replace(parts, claims=_spans().TracedClaims(parts.claims, spans, parts.clock), tracing=spans)


def _spans() -> Any:
    try:
        return import_module("hookseal.worker.spans")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"HOOKSEAL_TRACING needs a package that is not installed ({error.name}): pip install 'hookseal[otel]'"
        ) from None
