"""`hookseal endpoint`: the endpoints of a tenant."""

import sys
from typing import Annotated, Any, Final

import typer

from hookseal.admin import (
    Admin,
    EnabledEndpoint,
    Endpoint,
    EndpointDetails,
    EndpointStats,
    PeriodStats,
    Ping,
    PublicKeys,
    RetriedEndpoint,
    StatsOrder,
    Trouble,
)
from hookseal.cli.context import CHANGES, READS, call, listed, operator_name
from hookseal.cli.endpoint import options
from hookseal.cli.endpoint.rotation import end_overlap, rollback, rotate, rotation_status
from hookseal.cli.endpoint.settings import add, tls_lines, update
from hookseal.cli.shared.moments import moment
from hookseal.cli.shared.output import Columns, Json, Wide, emit, emit_page, fields_of, key_values, plain, rfc3339
from hookseal.cli.shared.progress import progress
from hookseal.cli.shared.runtime import start
from hookseal.dispatcher.core.endpoint_rules import NO_REASON
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import plural
from hookseal.ground.wire import Algorithm, Scheme

app: Final = typer.Typer(help="Add, change and show the endpoints of a tenant.", no_args_is_help=True)

_NONE: Final = "no endpoints"
_LIMIT_OF_ALL: Final = "that of HOOKSEAL_ENDPOINT_CONCURRENCY, which may grow to HOOKSEAL_ENDPOINT_CONCURRENCY_PEAK"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_WITHOUT_SCHEDULE: Final = frozenset({"max_attempts", "backoff_base_seconds", "backoff_cap_seconds"})
_PLAIN: Final = {"lane": "waits_for", "lane_since": "waits_since"}  # what fields of the JSON are called in a text
_ONLY_IF_TRUE: Final = frozenset({"has_plaintext", "stale"})
_COLUMNS: Final = Columns(
    ("endpoint_id", "state", "waits_for", "since", "tenant_id", "name", "url"),
    ("uid", "event_types", "channels", "generation", "created_at"),
)
_STATS: Final = Columns(
    ("endpoint_id", "state", "pending", "waiting", "hour", "p99_ms", "tenant_id"), ("oldest_due_at", "day")
)

Limit = Annotated[int, typer.Option(help="How many to list, 1 to 1000.")]
Cursor = Annotated[str | None, typer.Option(help="The next_cursor of the page before.")]

app.command()(add)


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str, typer.Option(help="Only endpoints of this tenant; '*' is every tenant.")] = ids.EVERY_TENANT,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only enabled, or only disabled, endpoints.")
    ] = None,
    state: Annotated[
        list[Trouble] | None,
        typer.Option(
            help="Only endpoints of which this is true, newest first: disabled, held, stopped, failing or "
            "rotation_due. Repeatable."
        ),
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="The lowest id first.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """List endpoints, the highest id first: the newest, if hookseal made the ids.

    Example: hookseal endpoint list --state failing --state held
    """
    page = listed(
        start(READS),
        lambda admin: admin.endpoints.list(
            tenant_id=tenant,
            enabled=enabled,
            states=state or None,
            limit=limit,
            cursor=cursor,
            oldest_first=oldest_first,
        ),
        tenant=tenant,
    )
    emit_page(page, _COLUMNS, none=_NONE, as_json=as_json, wide=wide, tenant=tenant, row=_row)


@app.command()
def show(
    *,
    tenant: options.Tenant,
    endpoint: Annotated[str | None, typer.Option(help="The id of the endpoint, or its uid.")] = None,
    uid: Annotated[str | None, typer.Option(help="Your own id of the endpoint, in place of --endpoint.")] = None,
    as_json: Json = False,
) -> None:
    """Show one endpoint: its settings, the secrets that sign for it, what waits for it, and what failed last.

    Example: hookseal endpoint show --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    details = call(start(READS), lambda admin: admin.endpoints.get(tenant_id=tenant, endpoint_id=endpoint, uid=uid))
    emit(details, as_json=as_json, text=lambda: _show_text(details))


@app.command()
def stats(
    *,
    tenant: Annotated[str, typer.Option(help="Only endpoints of this tenant; '*' is every tenant.")] = ids.EVERY_TENANT,
    endpoint: Annotated[
        str | None, typer.Option(help="Only this endpoint, by its id or its uid; with --tenant.")
    ] = None,
    state: Annotated[
        list[Trouble] | None,
        typer.Option(
            help="Only endpoints of which this is true: disabled, held, stopped, failing or rotation_due. Repeatable."
        ),
    ] = None,
    sort: Annotated[
        StatsOrder | None,
        typer.Option(
            help="The worst first, by pending, waiting, oldest_due or p99, of the 1,000 newest endpoints that match."
        ),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Show how the attempts of endpoints went in the last hour and day, and what is left to do.

    An attempt is counted within 15 seconds. Of each endpoint at most 10,000 pending deliveries are counted.

    Example: hookseal endpoint stats --state held --sort waiting
    """
    if tenant == ids.EVERY_TENANT and endpoint is not None:
        raise Malformed("name the tenant of the endpoint, too", field="tenant_id")
    page = listed(
        start(READS),
        lambda admin: admin.endpoints.stats(
            tenant_id=tenant, endpoint_id=endpoint, states=state or None, sort=sort, limit=limit, cursor=cursor
        ),
        tenant=tenant,
    )
    if endpoint is None:
        emit_page(page, _STATS, none=_NONE, as_json=as_json, wide=wide, tenant=tenant, row=_stats_row)
    else:
        emit(page, as_json=as_json, text=lambda: "\n".join(key_values(_flat(page.items[0]))))


app.command()(update)


@app.command()
def enable(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    since: Annotated[
        str | None,
        typer.Option(
            help="Also start a replay job for its deliveries that were made since then and not delivered: "
            "2026-01-31T12:00:00Z, or 1h, 7d (ago)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send deliveries to an endpoint again, and release its held deliveries, the oldest first.

    If it is enabled and its breaker is open, or its secret is refused, its oldest delivery is tried now.

    Example: hookseal endpoint enable --tenant acme --endpoint ENDPOINT_ID --since 2026-01-31T12:00:00Z
    """
    missed_since = moment(since, "since")
    enabled = call(
        start(CHANGES),
        lambda admin: admin.endpoints.enable(
            tenant_id=tenant, endpoint_id=endpoint, actor=operator_name(), since=missed_since
        ),
    )
    nothing = "\nnothing is to be replayed" if since is not None and enabled.replay is None else ""
    emit(enabled, as_json=as_json, text=_enabled_text(enabled) + nothing)


@app.command()
def retry(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Try now every delivery of an endpoint that waits for its next attempt, because an attempt of it has failed.

    The attempts that they have spent stay counted. If the breaker is open or the secret is refused, they wait with the
    others of the endpoint, and the command says how many. An ordered endpoint keeps its order. It changes up to 1,000
    deliveries at a time. You may run it again: it continues where it stopped.

    Example: hookseal endpoint retry --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """

    async def step(admin: Admin) -> RetriedEndpoint:
        with progress("deliveries to try now") as report:
            return await admin.endpoints.retry(
                tenant_id=tenant, endpoint_id=endpoint, actor=operator_name(), report=report
            )

    retried = call(start(CHANGES), step)
    emit(retried, as_json=as_json, text=_retried_text(retried))


@app.command()
def disable(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    reason: Annotated[str, typer.Option(help="The reason, for people, at most 256 characters.")] = NO_REASON,
    as_json: Json = False,
) -> None:
    """Send nothing to an endpoint until it is enabled again; its deliveries, old and new, are held.

    A delivery that is held for HOOKSEAL_HELD_DAYS is cancelled.

    Example: hookseal endpoint disable --tenant acme --endpoint ENDPOINT_ID --reason 'moves on Sunday'
    """
    disabled = call(
        start(CHANGES),
        lambda admin: admin.endpoints.disable(
            tenant_id=tenant, endpoint_id=endpoint, actor=operator_name(), reason=reason
        ),
    )
    before = f"was disabled already ({plain(disabled.disabled_reason or '-')}): nothing was changed"
    emit(
        disabled,
        as_json=as_json,
        text=f"endpoint {disabled.endpoint_id} {'is disabled' if disabled.changed else before}",
    )


@app.command()
def delete(
    *,
    tenant: options.Tenant,
    endpoint: options.Endpoint,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Required without a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an endpoint: cancel its pending deliveries, retire its secrets, and free its URL.

    Its finished deliveries and their attempts stay on record until HOOKSEAL_RETENTION_DAYS have passed.

    Example: hookseal endpoint delete --tenant acme --endpoint ENDPOINT_ID --yes
    """
    owner, endpoint_id = ids.owner_id(tenant), ids.endpoint_id(endpoint)  # before it asks whether to delete it
    settings = start(CHANGES)
    asked = f"Delete endpoint {endpoint_id} of {owner}, and cancel its pending deliveries?"
    if not yes and not sys.stdin.isatty():
        raise Malformed("standard input is no terminal, so the command cannot ask: add --yes to delete", field="yes")
    if not yes and not typer.confirm(asked, err=True):
        emit(
            {"tenant_id": owner, "endpoint_id": endpoint_id, "deleted": False},
            as_json=as_json,
            text="nothing was deleted",
        )
        raise typer.Exit(1)
    deleted = call(
        settings,
        lambda admin: admin.endpoints.delete(tenant_id=owner, endpoint_id=endpoint_id, actor=operator_name()),
    )
    emit(
        deleted,
        as_json=as_json,
        text=f"endpoint {endpoint_id} is deleted; pending deliveries cancelled: {deleted.cancelled}",
    )


@app.command()
def public_key(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Show the public key of the current secret, and of the previous one while an overlap runs.

    An endpoint that signs with hmac has no public key: its receiver needs the secret.

    Example: hookseal endpoint public-key --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    keys = call(start(CHANGES), lambda admin: admin.secrets.public_keys(tenant_id=tenant, endpoint_id=endpoint))
    emit(keys, as_json=as_json, text=lambda: _keys_text(keys))


app.command()(rotate)
app.command()(rollback)
app.command(name="end-overlap")(end_overlap)
app.command(name="rotation-status")(rotation_status)


@app.command(name="test")
def send_ping(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Send one signed ping; show addresses, TLS, the signed bytes and the answer: exit 0 if it is 2xx, else 1.

    The ping is sent as a delivery is: with these settings, signed with every secret that is due. A disabled endpoint
    is tested, too. Of the headers that the endpoint adds, only the names are shown.

    Example: hookseal endpoint test --tenant acme --endpoint ENDPOINT_ID
    """
    ping = call(
        start(CHANGES),
        lambda admin: admin.endpoints.test(tenant_id=tenant, endpoint_id=endpoint, actor=operator_name()),
    )
    emit(ping, as_json=as_json, text=lambda: _ping_text(ping))
    raise typer.Exit(0 if ping.delivered else 1)


def _row(item: Endpoint) -> dict[str, object]:
    return fields_of(item) | {"waits_for": item.lane, "since": item.state_since or item.lane_since}


def _show_text(details: EndpointDetails) -> str:
    facts: dict[str, Any] = {
        name: fact for name, fact in fields_of(details).items() if name not in _ONLY_IF_TRUE or fact
    }
    if details.previous_secret_ref is None:
        del facts["lead"]  # it has an effect only while two secrets sign
    else:
        facts["lead"] = f"the {details.lead} secret signs the plain header of {Scheme.X_WEBHOOK}"
    if details.retry_schedule is not None:
        waits = ",".join(map(_delay, details.retry_schedule))  # as the option takes it
        facts = {name: fact for name, fact in facts.items() if name not in _WITHOUT_SCHEDULE} | {
            "retry_schedule": waits
        }
    facts["concurrency"] = details.concurrency or _LIMIT_OF_ALL
    facts["rate"] = "no limit" if details.rate is None else f"{details.rate}/s"
    facts = {_PLAIN.get(name, name): fact for name, fact in facts.items()}
    facts["waits_for"] = details.lane or "nothing"
    del facts["last_failure"]
    if (failure := details.last_failure) is not None:
        answer = failure.outcome if failure.status is None else f"{failure.status} ({failure.outcome})"
        facts["last_failure"] = f"{rfc3339(failure.started_at)} {answer}, delivery {failure.delivery_id}"
    facts["tls"] = None if details.tls is None else "its own: see below"
    return "\n".join([*key_values(facts), *tls_lines(details.tls)])


def _delay(seconds: int) -> str:
    size, unit = next(each for each in _UNITS if seconds % each[0] == 0)
    return f"{seconds // size}{unit}"


def _stats_row(item: EndpointStats) -> dict[str, object]:
    """Return the row of a list, with the share of the last hour, and of the day, that was delivered."""
    return fields_of(item) | {
        "hour": _percent(item.last_hour.success_rate),
        "p99_ms": _whole(item.last_hour.p99_ms),
        "day": _percent(item.last_day.success_rate),
    }


def _flat(item: EndpointStats) -> dict[str, object]:
    flat = {name: fact for name, fact in fields_of(item).items() if not isinstance(fact, PeriodStats)}
    for period, stats in (("last_hour", item.last_hour), ("last_day", item.last_day)):
        flat |= {f"{period} attempts": stats.attempts, f"{period} delivered": stats.delivered}
        flat[f"{period} success rate"] = _percent(stats.success_rate)
        flat |= {f"{period} p50": _whole(stats.p50_ms, " ms"), f"{period} p99": _whole(stats.p99_ms, " ms")}
    return flat


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}%"


def _whole(number: float | None, unit: str = "") -> str | None:
    return None if number is None else f"{number:.0f}{unit}"


def _enabled_text(enabled: EnabledEndpoint) -> str:
    job = enabled.replay
    if enabled.changed:
        text = f"is enabled; held deliveries that are released: {enabled.woken}"
        if enabled.in_line:
            text += f"; that wait in line behind delivery {enabled.line_head}: {enabled.in_line}"
    elif enabled.probed:
        text = "was enabled already; its deliveries are held, and the oldest of them is tried now"
    else:
        text = f"was enabled already{'' if job else ': nothing was changed'}"
    if job is not None:
        text += f"\nreplay job {job.replay_id} runs: {plural(job.matched, 'delivery', 'deliveries')}"
    return f"endpoint {enabled.endpoint_id} {text}"


def _retried_text(retried: RetriedEndpoint) -> str:
    if not (retried.due or retried.held):
        return f"endpoint {retried.endpoint_id}: no delivery waits for its next attempt"
    lines = [f"endpoint {retried.endpoint_id}: {plural(retried.due, 'delivery is', 'deliveries are')} due now"]
    if retried.held:
        held = plural(retried.held, "delivery waits", "deliveries wait")
        lines.append(f"{held} with the others of the endpoint; to see for what, run")
        lines.append(f"  hookseal endpoint show --tenant {retried.tenant_id} --endpoint {retried.endpoint_id}")
    return "\n".join(lines)


def _keys_text(keys: PublicKeys) -> str:
    hmac = f"none, for it signs with {Algorithm.HMAC}"
    lines = [f"current   {keys.public_key or hmac}"]
    if keys.previous_secret_ref is not None and keys.previous_secret_expires_at is not None:
        until = rfc3339(keys.previous_secret_expires_at)
        lines.append(f"previous  {keys.previous_public_key or hmac}, until {until}")
    return "\n".join(lines)


def _ping_text(ping: Ping) -> str:
    answer, tls = ping.answer, ping.tls
    lines = [f"endpoint   {ping.endpoint_id}{'' if ping.enabled else ' (disabled)'}", f"url        {ping.url}"]
    lines += [f"address    {each.address}  {each.reason or 'allowed'}" for each in ping.addresses]
    lines += [] if ping.addresses_error is None else [f"address    {ping.addresses_error}"]
    lines.append(f"connected  {ping.dialled or 'to none: no request was sent'}")
    if tls is not None:
        until = "-" if tls.expires_at is None else rfc3339(tls.expires_at)
        lines.append(f"tls        {tls.version}  {tls.cipher}")
        lines.append(f"           {plain(tls.subject)}; from {plain(tls.issuer)}; until {until}")
    lines += [f"header     {name}: {plain(value)}" for name, value in ping.request.headers.items()]
    lines += [f"header     {name}: (sealed)" for name in ping.request.own_headers]
    for each in ping.signed:
        lines += [
            f"signed     by {each.secret_ref} ({each.scheme}, {each.algorithm})",
            f"  {plain(each.content)}",
            f"receiver   {each.receiver_computes}",
        ]
    status = answer.detail if answer.status is None else f"{answer.status} ({answer.outcome})"
    lines.append(f"answer     {status}, {answer.duration_ms} ms")
    lines += [f"body       {plain(answer.snippet)}"] if answer.snippet else []
    lines.append(
        "to check   run `hookseal verify --secret-file FILE --headers-file FILE --body-file FILE`, with headers and "
        "body as received"
    )
    return "\n".join(lines)
