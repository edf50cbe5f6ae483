"""`hookseal publish`: one event, to every endpoint of the tenant that subscribes to its type."""

from functools import partial
from typing import Annotated, Final

import structlog
import typer

from hookseal.cli.input_files import read_input
from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.client.doorbell import doorbell
from hookseal.client.event import event
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher.publish import Event, Published, publish_json, publish_raw
from hookseal.ground.errors import Malformed
from hookseal.ground.wire import MAX_BODY_BYTES

_NEEDS: Final = frozenset({Part.DATABASE, Part.REDIS})


def publish(
    *,
    tenant: Annotated[str, typer.Option(help="Whose event it is.")],
    event_type: Annotated[str, typer.Option(help="For instance invoice.paid.")],
    data: Annotated[str | None, typer.Option(help="The payload, as JSON.")] = None,
    file: Annotated[str | None, typer.Option(help="A file with the payload as JSON; - is stdin.")] = None,
    raw_file: Annotated[str | None, typer.Option(help="A file that is sent byte for byte as the body.")] = None,
    event_id: Annotated[str | None, typer.Option(help="Publishing it again with this id changes nothing.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Kept from here to the receiver.")] = None,
    as_json: Json = False,
) -> None:
    """Publish an event: it is stored with one delivery for each endpoint that subscribes to its type.

    It rings the workers through REDIS_URL, which it needs; where there is none, publish from SQL or with the Publisher.

    Example: hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'
    """
    if sum(source is not None for source in (data, file, raw_file)) != 1:
        raise Malformed("give exactly one of --data, --file and --raw-file", field="data")
    given = event(tenant_id=tenant, event_type=event_type, event_id=event_id, correlation_id=correlation_id)
    payload = _payload(data, file, raw_file)
    published = run(_publish(start(_NEEDS), given, payload))
    emit(_shape(published), as_json=as_json, text=lambda: _text(published))


def _payload(data: str | None, file: str | None, raw_file: str | None) -> str | bytes:
    if raw_file is not None:
        return _read(raw_file)
    # Python lets bytes of an argument that are not UTF-8 through, spelled as lone surrogates.
    raw = _read(file or "-") if data is None else data.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("data must be JSON in UTF-8", field="data") from None


def _read(source: str) -> bytes:
    content = read_input(source, MAX_BODY_BYTES, field="file")
    if len(content) > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    return content


async def _publish(settings: Settings, given: Event, payload: str | bytes) -> Published:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        if isinstance(payload, bytes):
            published = await publish_raw(connection, given, payload)
        else:
            published = await publish_json(connection, given, payload)
    async with doorbell(settings, partial(_tell_lost, settings)) as ringing:
        await ringing.ring(published.due)
    return published


def _tell_lost(settings: Settings, reason: str) -> None:
    # The event is stored: a lost ring only makes it late.
    structlog.get_logger().warning("ring.lost", reason=reason, redis=settings.redis.address, forgiven_by="the outbox")


def _shape(published: Published) -> dict[str, object]:
    return {
        "event_id": published.event_id,
        "duplicate": published.duplicate,
        "deliveries": [
            {"delivery_id": ring.delivery_id, "endpoint_id": ring.endpoint_id} for ring in published.deliveries
        ],
    }


def _text(published: Published) -> str:
    repeat = " (published before: nothing was changed)" if published.duplicate else ""
    if not published.deliveries:
        return f"event     {published.event_id}{repeat}\nno enabled endpoint subscribes to it"
    deliveries = "\n".join(f"delivery  {ring.delivery_id}" for ring in published.deliveries)
    return f"event     {published.event_id}{repeat}\n{deliveries}"
