"""`hookseal publish`: one event, to every endpoint of the tenant that subscribes to its type."""

from contextlib import suppress
from functools import partial
from typing import Annotated, Final

import asyncpg
import typer

from hookseal.cli.shared.input_files import read_input
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.runtime import Connection, reading, run, start
from hookseal.client.doorbell import doorbell
from hookseal.client.publisher import event
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher.store import endpoints, event_types
from hookseal.dispatcher.store.publish import NewEvent, PublishResult, publish_json, publish_raw
from hookseal.errors import HooksealError, Malformed
from hookseal.ground.wire import MAX_BODY_BYTES

_NEEDS: Final = frozenset({Part.DATABASE, Part.REDIS})


def publish(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant of the event.")],
    event_type: Annotated[str, typer.Option(help="The type of the event, for example invoice.paid.")],
    data: Annotated[str | None, typer.Option(help="The payload, in JSON.")] = None,
    file: Annotated[str | None, typer.Option(help="A file with the payload in JSON; - is stdin.")] = None,
    raw_file: Annotated[
        str | None, typer.Option(help="A file that is sent as the body, byte for byte; - is stdin.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option(help="The id of the event: to publish it again changes nothing.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="An id of yours, which the receiver gets as x-correlation-id.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="Only to endpoints with this channel, or with none. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish an event: store it, with one delivery for each endpoint that subscribes to its type.

    Then it notifies the workers through Redis, so it needs REDIS_URL. Without Redis, publish from SQL or with the class
    Publisher. It warns if no worker is running.

    Example: hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'
    """
    if sum(source is not None for source in (data, file, raw_file)) != 1:
        raise Malformed("give exactly one of --data, --file and --raw-file", field="data")
    new_event = event(
        tenant_id=tenant,
        event_type=event_type,
        event_id=event_id,
        correlation_id=correlation_id,
        channels=channel or (),
    )
    payload = _payload(data, file, raw_file)
    settings = start(_NEEDS)
    published, has_worker, near = reading(settings, lambda connection: _publish(connection, new_event, payload))
    run(_ring(settings, published))
    if published.due and not has_worker:
        note("the event is stored, but no worker is running: it is delivered when you start `hookseal worker`")
    emit(_shape(published, near), as_json=as_json, text=lambda: _text(new_event, published, near))


def _payload(data: str | None, file: str | None, raw_file: str | None) -> str | bytes:
    if raw_file is not None:
        return _read(raw_file)
    # Python passes the bytes of an argument that are not UTF-8 on as lone surrogates.
    raw = _read(file or "-") if data is None else data.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"data must be JSON in UTF-8: byte {error.start + 1} is not", field="data") from None


def _read(source: str) -> bytes:
    content = read_input(source, MAX_BODY_BYTES, field="file")
    if len(content) > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    return content


async def _publish(
    connection: Connection, new_event: NewEvent, payload: str | bytes
) -> tuple[PublishResult, bool, str | None]:
    """Return what was published, and, as far as this role may know, whether a worker has reported lately.

    If no endpoint gets the event, also the type of the catalogue that may have been meant.
    """
    if isinstance(payload, bytes):
        published = await publish_raw(connection, new_event, payload)
    else:
        published = await publish_json(connection, new_event, payload)
    with suppress(HooksealError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # the event is stored
        near = None if published.deliveries else await event_types.near(connection, new_event.event_type)
        return published, await endpoints.smallest_drain_seconds(connection) is not None, near
    return published, True, None


async def _ring(settings: Settings, published: PublishResult) -> None:
    async with doorbell(settings, partial(_report_lost, settings)) as ringing:
        await ringing.ring(published.due)


def _report_lost(settings: Settings, reason: str) -> None:
    note(
        f"the event is stored, but the workers were not notified through Redis at {settings.redis.address}: "
        f"{reason}. A worker that reaches Redis finds it by itself within about a second"
    )


def _shape(published: PublishResult, near: str | None) -> dict[str, object]:
    return {
        "event_id": published.event_id,
        "duplicate": published.duplicate,
        "deliveries": [
            {"delivery_id": ring.delivery_id, "endpoint_id": ring.endpoint_id} for ring in published.deliveries
        ],
        "matched": bool(published.deliveries),
        "did_you_mean": near,
    }


def _text(new: NewEvent, published: PublishResult, near: str | None) -> str:
    repeat = " (published before: nothing was changed)" if published.duplicate else ""
    if not published.deliveries:
        subscribed = f"no endpoint of tenant {new.tenant_id} subscribes to {new.event_type}: nothing is sent"
        meant = "" if near is None else f"\nDid you mean {near}?"
        return f"event     {published.event_id}{repeat}\n{subscribed}{meant}"
    deliveries = "\n".join(f"delivery  {ring.delivery_id}" for ring in published.deliveries)
    return f"event     {published.event_id}{repeat}\n{deliveries}"
