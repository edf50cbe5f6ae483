"""The endpoints of an Admin: where the events of a tenant are sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Any, Unpack

from hookseal.admin import arguments, imports, translation
from hookseal.admin.arguments import Text
from hookseal.admin.imports import ImportRow
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.deliveries import DeliveriesByState
from hookseal.admin.results.endpoints import (
    AddedEndpoint,
    DeletedEndpoint,
    DisabledEndpoint,
    EnabledEndpoint,
    Endpoint,
    EndpointDetails,
    EndpointStats,
    FailedAttempt,
    FailedRow,
    ImportedEndpoints,
    RetriedEndpoint,
    SentExample,
    UpdatedEndpoint,
)
from hookseal.admin.results.pings import Ping
from hookseal.admin.results.replays import ReplayJob
from hookseal.admin.session import Session
from hookseal.dispatcher.core import payload
from hookseal.dispatcher.core.endpoint_rules import NO_REASON
from hookseal.dispatcher.core.endpoint_settings import EndpointSettings
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import Selection
from hookseal.dispatcher.store import delivery_queries, endpoint_queries
from hookseal.dispatcher.store.endpoint_queries import EndpointFilter, StatsOrder, Trouble
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Malformed
from hookseal.ground.literals import AlgorithmName, Lead, SchemeName, StatsOrderName, TroubleName
from hookseal.ground.unset import UNSET, Unset
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import import_endpoints
from hookseal.operations.endpoint import endpoints, probe, update
from hookseal.operations.import_endpoints import Import
from hookseal.operations.operator import Operator
from hookseal.operations.replay import enable_and_replay, retry, send_example
from hookseal.postgres.pool import Connection
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import require_signing_secret


class Endpoints:
    """Adds, reads, changes, tests and deletes endpoints.

    Durations and rates are whole numbers, in the unit that the name or the docstring says. Texts with a unit, such as
    `5s` and `50/s`, are for the command line.

    Every method that changes something takes the `actor` for the audit log. With a `connection` of asyncpg in a
    transaction, it becomes a part of that transaction; an error undoes only this part. Every method raises `Malformed`
    with the argument in `field`, `NotFound`, `Refused` if the database role may not do it, and `Unavailable`; every
    change also `ConfigError` if this process has no master key that fits, and `InDoubt` if it is not known whether it
    was committed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(
        self,
        *,
        tenant_id: str,
        url: str,
        event_types: Sequence[str],
        actor: str,
        scheme: Scheme | SchemeName = "standard",
        algorithm: Algorithm | AlgorithmName = "hmac",
        headers: Mapping[str, str] | None = None,
        client_cert: Text | None = None,
        client_key: Text | None = None,
        ca: Text | None = None,
        secret: Text | SecretMaterial | None = None,
        allow_same_url: bool = False,
        enabled: bool = True,
        reason: str | None = None,
        connection: Connection | None = None,
        **settings: Unpack[EndpointSettings],
    ) -> AddedEndpoint:
        """Add an endpoint with a signing secret, by default a new one. This result is the place to get the secret from.

        `settings` are those of `EndpointSettings`, which says what each does. A `retry_schedule` of None leaves the
        waits to back-off. `headers` are sent with every request. `client_cert`, `client_key` and `ca` are PEM. All of
        these are stored sealed. Raises `Conflict` if the tenant has an endpoint with this url, unless `allow_same_url`
        is true, or with this uid, `Refused` for a url to which this installation sends nothing. One that is not
        `enabled` is added disabled, for this `reason`, by default "disabled by an operator".
        """
        owner = arguments.tenant_id(tenant_id)
        new = NewEndpoint(
            tenant_id=owner,
            url=arguments.url(self._session.settings.egress, owner, url),
            event_types=arguments.subscriptions(event_types),
            settings=arguments.endpoint_settings_of(settings, new=True),
            scheme=arguments.choice(Scheme, scheme, "scheme"),
            algorithm=arguments.choice(Algorithm, algorithm, "algorithm"),
            shares_url=arguments.flag(allow_same_url, "allow_same_url"),
        )
        own = translation.extras(headers, client_cert, client_key, ca)
        overlap.require_signable(new.scheme, new.algorithm)
        material = None if secret is None else arguments.secret(secret)
        if material is not None:
            require_signing_secret(material, new.scheme, new.algorithm)
        disabled_reason = arguments.enabled(enabled, reason)
        async with (
            self._session.changing(actor, connection, tenant=owner) as operator,
            _at_once(operator, disabled_reason),
        ):
            added = await endpoints.add_endpoint(
                operator, new, material, own_drain_seconds=self._drain_seconds, own=own
            )
            if disabled_reason is not None:
                await endpoints.disable_endpoint(operator, owner, added.pointer.endpoint_id, reason=disabled_reason)
        return translation.added(added)

    async def import_rows(
        self,
        *,
        rows: Iterable[ImportRow],
        actor: str,
        scheme: Scheme | SchemeName | None = None,
        dry_run: bool = False,
        report: Callable[[str], None] | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> ImportedEndpoints:
        """Add endpoints of an older system with the secrets that their receivers have, each in one transaction.

        A row whose endpoint exists with the same secret changes nothing, so a call may be repeated; of two rows for one
        endpoint the first counts. `scheme` is that of rows which name none, by default `x-webhook`; a `whsec_` needs
        one. A row that fails is in `failed`, and does not stop the others; an outage does. `report` is called with a
        line for a person: each failure, the counts after every 1,000 rows, and in a `dry_run`, which changes nothing,
        what would be done with each row. `on_progress` is called after each row with the number of rows that are done,
        and with that of all, or None if it is not known. It joins no transaction, and works over five connections:
        while it does, four other changes can be made, and another call of this kind waits.
        """
        is_dry = arguments.flag(dry_run, "dry_run")
        otherwise = None if scheme is None else arguments.choice(Scheme, scheme, "scheme")
        wanted = imports.checked(self._session.settings.egress, rows, otherwise)
        async with self._session.changing_many(actor) as (operator, further):
            tally = await import_endpoints.import_rows(
                operator,
                further,
                wanted,
                own_drain_seconds=self._drain_seconds,
                is_dry=is_dry,
                report=report or (lambda _line: None),
                on_progress=on_progress,
            )
        return ImportedEndpoints(
            dry_run=is_dry,
            added=tally.counts[Import.ADDED],
            present=tally.counts[Import.PRESENT],
            failures=tally.failures,
            failed=tuple(of_row(FailedRow, each) for each in tally.failed),
        )

    async def find(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        uid: str | None = None,
        connection: Connection | None = None,
    ) -> Endpoint:
        """Return the endpoint with this id, or with this uid, as in a list: by one statement, which counts nothing."""
        owner, named = arguments.tenant_id(tenant_id), arguments.endpoint(endpoint_id, uid)
        async with self._session.reading(connection) as db:
            return of_row(Endpoint, await endpoint_queries.find(db, owner, **named))

    async def find_all(
        self, *, tenant_id: str, endpoint_ids: Sequence[str], connection: Connection | None = None
    ) -> Mapping[str, Endpoint]:
        """Return each of up to 250 endpoints that exists, by its id, as in a list: by one statement."""
        owner, endpoints_named = arguments.tenant_id(tenant_id), arguments.endpoint_ids(endpoint_ids)
        async with self._session.reading(connection) as db:
            rows = await endpoint_queries.find_all(db, owner, endpoints_named)
        return {row["endpoint_id"]: of_row(Endpoint, row) for row in rows}

    async def get(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        uid: str | None = None,
        connection: Connection | None = None,
    ) -> EndpointDetails:
        """Return an endpoint with its settings, the secrets that sign for it, and its waiting deliveries.

        It is named by its id or by its uid.
        """
        owner, named = arguments.tenant_id(tenant_id), arguments.endpoint(endpoint_id, uid)
        async with self._session.reading(connection) as db:
            row = await endpoint_queries.show(db, owner, **named)
        failure = row["last_failure"]
        return of_row(EndpointDetails, row, last_failure=None if failure is None else of_row(FailedAttempt, failure))

    async def list(
        self,
        *,
        tenant_id: str,
        enabled: bool | None = None,
        states: Sequence[Trouble | TroubleName] | None = None,
        limit: int = 50,
        cursor: str | None = None,
        after: str | None = None,
        before: str | None = None,
        oldest_first: bool = False,
        connection: Connection | None = None,
    ) -> Page[Endpoint]:
        """Return up to `limit` (1 to 1000) endpoints of the tenant, the newest first; `*` is every tenant.

        Newest means the highest id. The page is that after an earlier one (`cursor`), or that next to an endpoint which
        may be deleted: what comes `after` its id in this order, or ends just `before` it. A page before an id that is
        the first has no `next_cursor`.

        With `states` one of them is true of each endpoint: disabled, held, stopped, failing or rotation_due, also if
        its `state` is another one. Disabled endpoints are there only if that is one of them. Of each state 10,000 are
        searched. This list is always the newest first, and neither `enabled` nor `before` is given with it.
        """
        is_enabled = None if enabled is None else arguments.flag(enabled, "enabled")
        troubles = None if states is None else arguments.troubles(states)
        filter_ = EndpointFilter(tenant_id=arguments.tenant_or_every(tenant_id), enabled=is_enabled, states=troubles)
        arguments.page(limit, cursor)
        place = arguments.place(cursor, after, before, oldest_first=oldest_first)
        if troubles is not None and (is_enabled is not None or oldest_first or before is not None):
            raise Malformed("states cannot be combined with enabled, oldest_first or before", field="states")
        async with self._session.reading(connection) as db:
            items, following = await endpoint_queries.page(db, filter_, place, limit=limit)
        return Page(items=tuple(of_row(Endpoint, item) for item in items), next_cursor=following)

    async def deliveries_by_state(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        since: datetime | None = None,
        until: datetime | None = None,
        connection: Connection | None = None,
    ) -> DeliveriesByState:
        """Count the deliveries to an endpoint, which may be deleted, by their state now: the newest 5,000 at most.

        They were made at `since` or later, and before `until`, as in `deliveries.list`.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        earliest, latest = arguments.moment(since, "since"), arguments.moment(until, "until")
        async with self._session.reading(connection) as db:
            counts, complete = await delivery_queries.count_by_state(db, owner, endpoint, since=earliest, until=latest)
        by_state = {state.value: counts[state] for state in State}
        return DeliveriesByState(tenant_id=owner, endpoint_id=endpoint, **by_state, complete=complete)

    async def stats(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        states: Sequence[Trouble | TroubleName] | None = None,
        sort: StatsOrder | StatsOrderName | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[EndpointStats]:
        """Return how up to `limit` endpoints of the tenant, or one of them, did in the last hour and day.

        `*` is every tenant, which names no endpoint. `states` are as for `list`. With `sort` (pending, waiting,
        oldest_due, or p99 of the last hour) the worst come first, of the 1,000 newest endpoints that match; then there
        is no next page.
        """
        endpoint = arguments.optional(arguments.endpoint_id, endpoint_id)
        owner = arguments.tenant_or_every(tenant_id) if endpoint is None else arguments.tenant_id(tenant_id)
        troubles = None if states is None else arguments.troubles(states)
        order = None if sort is None else arguments.choice(StatsOrder, sort, "sort")
        arguments.page(limit, cursor)
        if endpoint is not None and troubles is not None:
            raise Malformed("states cannot be combined with an endpoint", field="states")
        if order is not None and cursor is not None:
            raise Malformed("what is sorted has no next page: leave the cursor out", field="cursor")
        async with self._session.reading(connection) as db:
            items, following = await endpoint_queries.stats_page(
                db, owner, endpoint, states=troubles, order=order, limit=limit, cursor=cursor
            )
        return Page(items=tuple(map(translation.stats, items)), next_cursor=following)

    async def update(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        url: str | Unset = UNSET,
        event_types: Sequence[str] | Unset = UNSET,
        headers: Mapping[str, str] | Unset = UNSET,
        change_headers: Mapping[str, str | None] | Unset = UNSET,
        client_cert: Text | Unset | None = UNSET,
        client_key: Text | None = None,
        ca: Text | Unset | None = UNSET,
        lead: Lead | Unset = UNSET,
        expect_generation: int | None = None,
        expect: Mapping[str, Any] | None = None,
        allow_same_url: bool = False,
        keep_headers: bool | None = False,
        enabled: bool | Unset = UNSET,
        reason: str | None = None,
        connection: Connection | None = None,
        **settings: Unpack[EndpointSettings],
    ) -> UpdatedEndpoint:
        """Change what is given, all of it or nothing, from the next claim on.

        `settings` are those of `EndpointSettings`; None removes a uid, a schedule, a limit or a period of rotation, and
        the client certificate or the authorities. `metadata`, `channels` and `headers` replace all that there is;
        `change_headers` sets those that have a value, removes those that are None, and leaves the others. With
        `on_dead_letter` `skip` a stopped endpoint goes on. Raises `Conflict` if another endpoint of the tenant has the
        url, unless `allow_same_url` is true, or the uid, or if the generation is not the expected one. That changes
        with url, headers and secrets; of other fields `expect` has the expected values, lists as tuples. `enabled`
        enables the endpoint, or disables it for this `reason`, as the methods of these names do; if it is so already,
        nothing is tried.

        A `url` of another scheme, host or port takes along neither headers nor the client certificate, but for those
        given in this call: `dropped` names what was removed, because its new receiver would see it. `keep_headers`
        keeps them. That is as good as to reveal them, so offer it only to a user who may; `Refused` is raised if the
        database role of this Admin may not open them. None raises `Conflict`, with this field, in place of removing.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        changes = arguments.without_unset({"url": url, "event_types": event_types})
        if "url" in changes:
            changes["url"] = arguments.url(self._session.settings.egress, owner, changes["url"])
        if "event_types" in changes:
            changes["event_types"] = arguments.subscriptions(changes["event_types"])
        changes |= arguments.endpoint_settings_of(settings, new=False)
        if lead is not UNSET:
            changes["lead"] = arguments.lead(lead)
        changes |= translation.extras_changes(headers, change_headers, client_cert, client_key, ca)
        expected = arguments.optional_whole(expect_generation, "expect_generation")
        expected_fields = arguments.expected(expect)
        shares_url = arguments.flag(allow_same_url, "allow_same_url")
        keeps = None if keep_headers is None else arguments.flag(keep_headers, "keep_headers")
        disabled_reason = arguments.enabled(True if enabled is UNSET else enabled, reason)
        if not changes and enabled is UNSET:
            raise Malformed("give at least one thing to change", advice="`hookseal endpoint update --help` lists them")
        switch = None if enabled is UNSET else enabled
        async with self._session.changing(actor, connection, tenant=owner) as operator, _at_once(operator, switch):
            updated = await update.update_endpoint(
                operator,
                owner,
                endpoint,
                changes,
                own_drain_seconds=self._drain_seconds,
                expect_generation=expected,
                expect=expected_fields,
                shares_url=shares_url,
                keep_headers=keeps,
            )
            switched = switch is not None and await endpoints.set_enabled(
                operator, owner, endpoint, disabled_reason=disabled_reason, own_drain_seconds=self._drain_seconds
            )
        also = {"enabled": switch} if switched else {}
        return UpdatedEndpoint(
            tenant_id=owner,
            endpoint_id=endpoint,
            generation=updated.generation,
            changed=(*updated.changed, *also),
            dropped=updated.dropped,
            before={**updated.before, **{name: not value for name, value in also.items()}},
            after={**updated.after, **also},
        )

    async def enable(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        since: datetime | None = None,
        connection: Connection | None = None,
    ) -> EnabledEndpoint:
        """Send deliveries to the endpoint again, and release its held deliveries, the oldest first.

        If it is enabled already and its deliveries are held, the oldest of them is tried now: `probed`. With `since` a
        replay job is started for its deliveries that were made since then and not delivered, if there are any. Raises
        as `replays.start` does.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        earliest = arguments.moment(since, "since")
        missed = None if earliest is None else Selection(tenant_id=owner, endpoint_id=endpoint, since=earliest)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            enabled, job = await enable_and_replay(
                operator, owner, endpoint, missed, own_drain_seconds=self._drain_seconds
            )
        return EnabledEndpoint(
            tenant_id=owner,
            endpoint_id=endpoint,
            changed=enabled.changed,
            woken=enabled.woken,
            in_line=enabled.in_line,
            line_head=enabled.line_head,
            probed=enabled.probed,
            replay=None if job is None else of_row(ReplayJob, job.shown()),
        )

    async def retry(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        report: Callable[[int], None] | None = None,
    ) -> RetriedEndpoint:
        """Try now every delivery of the endpoint that waits for its next attempt, the oldest first.

        The attempts that they have spent stay counted. If the endpoint is held, or its lane is crowded, they wait with
        its others: `held`. An ordered endpoint keeps its order. Each transaction changes at most 1,000 deliveries and
        has a row in the audit log; `report` is called with the number of each. So it joins no transaction, and a repeat
        continues. Raises `Refused` if the endpoint is disabled.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(actor, tenant=owner) as operator:
            retried = await retry(operator, owner, endpoint, report=report)
        return RetriedEndpoint(tenant_id=owner, endpoint_id=endpoint, due=retried.due, held=retried.held)

    async def disable(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        reason: str = NO_REASON,
        connection: Connection | None = None,
    ) -> DisabledEndpoint:
        """Send nothing to the endpoint until it is enabled again; its deliveries, old and new, are held.

        `reason` is for people, 1 to 256 characters. An endpoint that is disabled already keeps its `disabled_reason`.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        why = arguments.reason(reason)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            disabled = await endpoints.disable_endpoint(operator, owner, endpoint, reason=why)
        return DisabledEndpoint(
            tenant_id=owner, endpoint_id=endpoint, disabled_reason=disabled.reason, changed=disabled.changed
        )

    async def delete(
        self, *, tenant_id: str, endpoint_id: str, actor: str, connection: Connection | None = None
    ) -> DeletedEndpoint:
        """Delete the endpoint: cancel its pending deliveries, retire its secrets, and free its url."""
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            cancelled = await endpoints.delete_endpoint(operator, owner, endpoint)
        return DeletedEndpoint(tenant_id=owner, endpoint_id=endpoint, cancelled=cancelled)

    async def send_example(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        event_type: str,
        data: object = UNSET,
        body: bytes | None = None,
        actor: str,
        connection: Connection | None = None,
    ) -> SentExample:
        """Publish an event to this endpoint only, of any type. A worker delivers it, and it is listed as every other.

        `data` or `body` are as for `Publisher.publish`. Raises `Refused` if the endpoint is disabled.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        kind, content = arguments.event_type(event_type), payload.content(data, body)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            published = await send_example(operator, owner, endpoint, kind, content)
        [delivery] = published.deliveries
        return SentExample(
            tenant_id=owner,
            endpoint_id=endpoint,
            event_id=published.event_id,
            event_type=kind,
            delivery_id=delivery.delivery_id,
            due=bool(published.due),
        )

    async def test(self, *, tenant_id: str, endpoint_id: str, actor: str) -> Ping:
        """Send one signed ping as a delivery is sent, also to a disabled endpoint, and return the answer.

        It joins no transaction, because it waits for the receiver, at most for the time-out of the endpoint. At most
        five are sent at once, and two of one tenant; others wait up to 15 s, and then raise `Unavailable`.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.pinging(actor, owner) as (operator, how):
            return translation.ping(await probe.send_ping(operator, how, tenant=owner, endpoint_id=endpoint))

    @property
    def _drain_seconds(self) -> int:
        return self._session.settings.worker.drain_seconds


def _at_once(operator: Operator, switch: object) -> AbstractAsyncContextManager[object]:
    """Return a transaction for the changes of the block, if there is a switch besides the first of them."""
    return nullcontext() if switch is None else operator.changing()
