"""Resolving names: which of the resolved addresses are dialled, and who waits for a slow name server."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http import egress_guard
from hookseal.dispatcher.http.egress_guard import Addresses, Guard, LookUps, Names, is_of_this_machine
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import listening, status
from tests.worker.waiting import eventually

HERE_ONLY = AddressRules((AllowedNetwork(network=ip_network("127.0.0.1/32"), tenant=None),))
FORBIDDEN = Failure(
    kind=FailureKind.FORBIDDEN_ADDRESS, detail="the name resolves only to addresses that may not be dialled"
)


def transport(rules: AddressRules, look_up: Callable[[str], Addresses], limits: Limits | None = None) -> HttpTransport:
    """Return a transport whose resolver is this one."""
    limits = limits or Limits()
    return HttpTransport(rules, limits=limits, look_ups=LookUps(limits, look_up))


def always_resolving_to(address: str) -> Callable[[str], Addresses]:
    """Return a resolver that always returns this address."""
    return lambda _host: (address,)


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize(
    "found", [("10.0.0.1", "127.0.0.1"), ("127.0.0.1", "10.0.0.1"), ("::1", "fd00::1", "127.0.0.1")]
)
async def test_only_allowed_addresses_of_a_name_are_dialled(found: Addresses) -> None:
    """Only the allowed addresses of a name are dialled, in whatever order the resolver returns them."""
    async with listening(status(204)) as listener, transport(HERE_ONLY, lambda _: found) as sending:
        answer = await sending.send(request_to(f"http://both.example:{listener.port}/"))

    assert Reply(status=204, snippet="") == answer


@pytest.mark.req("DEL-12")
async def test_a_rebinding_name_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first resolves to an allowed address, and then to a forbidden one, is not dialled the second time."""
    monkeypatch.setattr(egress_guard, "KNOWN_SECONDS", 0)
    found = iter([("127.0.0.1",), ("127.0.0.2",)])
    arrived: list[asyncio.StreamWriter] = []
    async with listening(status(204, headers=b"connection: close\r\n")) as listener:
        other = await asyncio.start_server(lambda _, writer: arrived.append(writer), "127.0.0.2", listener.port)
        async with other, transport(HERE_ONLY, lambda _: next(found)) as sending:
            url = f"http://rebinding.example:{listener.port}/"
            answers = [await sending.send(request_to(url)) for _ in range(2)]

    assert [Reply(status=204, snippet=""), FORBIDDEN] == answers
    assert [] == arrived


def own_addresses() -> list[str]:
    """Return addresses of this machine: loopback, and the source addresses of its outgoing connections."""
    found = {"127.0.0.1", "127.0.0.53"}
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
            except OSError:
                continue
            found.add(probe.getsockname()[0])
    return sorted(found)


@pytest.mark.req("DEL-12")
async def test_nothing_reaches_this_machine() -> None:
    """No connection reaches a listener on every address of this machine, neither by an address nor by a name."""
    arrived: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: arrived.append(writer), "0.0.0.0", 0)  # noqa: S104 -- all addresses are tested
    port = server.sockets[0].getsockname()[1]
    answers = []
    async with server:
        for address in [*own_addresses(), "0.0.0.0", "::1", "::ffff:127.0.0.1"]:  # noqa: S104 -- refused
            literal = f"[{address}]" if ":" in address else address
            async with transport(AddressRules(), always_resolving_to(address)) as sending:
                answers += [await sending.send(request_to(f"http://{host}:{port}/")) for host in (literal, "a.example")]

    assert {FailureKind.FORBIDDEN_ADDRESS} == {answer.kind for answer in answers if isinstance(answer, Failure)}
    assert [] == arrived
    assert len(answers) == sum(isinstance(answer, Failure) for answer in answers)


@pytest.mark.req("DEL-12")
def test_an_address_of_this_machine_is_refused_though_it_is_public() -> None:
    """An address of this machine is refused even if the table does not refuse it, unless it is allowed."""
    own = next(address for address in own_addresses() if ":" not in address)
    lenient = Guard(frozenset(), refuses=lambda _address, _allowed: None)
    allowing = Guard(frozenset({ip_network(own)}), refuses=lambda _address, _allowed: None)

    assert "an address of this machine" == lenient.refusal_of(own)
    assert allowing.refusal_of(own) is None
    assert lenient.refusal_of("192.0.2.1") is None
    assert not is_of_this_machine("255.255.255.255")


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Yield an event that slow name servers wait for; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.req("DEL-12")
async def test_a_slow_look_up_is_a_failed_attempt(hanging: threading.Event) -> None:
    """A name that is not resolved in time is a failed attempt: the delivery is not given back again and again."""

    def look_up(_host: str) -> Addresses:
        hanging.wait()
        return ("127.0.0.1",)

    async with transport(HERE_ONLY, look_up, Limits(name_seconds=0.1)) as sending:
        answer = await sending.send(request_to("http://slow.example/"))

    assert Failure(kind=FailureKind.DNS, detail="the host name was not resolved within 0.1 s") == answer
    assert Limits().name_seconds < 2, "else no request to this name would begin in time"


@pytest.mark.req("DEL-11", part="bounds")
async def test_hanging_look_ups_delay_no_other_tenant(hanging: threading.Event) -> None:
    """While the look-ups of one tenant hang, those of another are answered; the number of threads is bounded."""
    asked: Counter[str] = Counter()

    def look_up(host: str) -> Addresses:
        asked[host.partition(".")[2]] += 1
        if host.endswith("hostile.example"):
            hanging.wait()
        return ("127.0.0.1",)

    limits = Limits(name_seconds=3.0, look_ups_each=4)
    async with listening(status(204)) as listener, transport(HERE_ONLY, look_up, limits) as sending:
        hostile = [
            asyncio.create_task(
                sending.send(
                    request_to(
                        f"http://{number}.hostile.example/", tenant="globex", start_by=SystemClock().monotonic() + 9
                    )
                )
            )
            for number in range(100)
        ]
        answers = [
            await sending.send(request_to(f"http://{number}.example:{listener.port}/", timeout_seconds=30))
            for number in range(20)
        ]
        held = asked["hostile.example"]
        found = await asyncio.gather(*hostile)

    assert [Reply(status=204, snippet="")] * 20 == answers
    assert 4 == held == asked["hostile.example"]
    assert {FailureKind.DNS} == {answer.kind for answer in found if isinstance(answer, Failure)}
    assert 100 == sum(isinstance(answer, Failure) for answer in found)


@pytest.mark.req("DEL-11", part="bounds")
def test_only_the_first_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the addresses that a name server returns, only the first MAX_ADDRESSES are used, in their order."""
    many = [f"1.1.{number // 250}.{number % 250}" for number in range(4_000)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in many for _ in range(2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert tuple(many[: egress_guard.MAX_ADDRESSES]) == egress_guard.system_look_up("many.example")


async def test_look_ups_are_limited() -> None:
    """A look-up above the limit per tenant, or in all, waits until another one has ended, and then starts."""
    turns = {name: threading.Event() for name in ("a", "b", "c", "d")}
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        turns[host].wait()
        return (host,)

    async def have_started(hosts: set[str]) -> bool:
        return set(asked) == hosts

    known = Names(LookUps(Limits(look_ups_each=1, look_ups=2), look_up))
    acme, globex = TenantId("acme"), TenantId("globex")
    try:
        waiting = [
            asyncio.create_task(known.addresses(tenant, host))
            for tenant, host in ((acme, "a"), (acme, "b"), (globex, "c"), (None, "d"))
        ]
        await eventually(lambda: have_started({"a", "c"}))
        turns["a"].set()
        await eventually(lambda: have_started({"a", "b", "c"}))
        turns["c"].set()
        await eventually(lambda: have_started({"a", "b", "c", "d"}))
    finally:
        for turn in turns.values():
            turn.set()

    assert [("a",), ("b",), ("c",), ("d",)] == await asyncio.gather(*waiting)


@pytest.mark.req("SEC-08")
async def test_look_ups_are_shared_within_a_tenant_only() -> None:
    """Concurrent look-ups of one name are shared within a tenant, and not between tenants."""
    turn = threading.Barrier(3, timeout=10)
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        turn.wait()
        return (f"{len(asked)}",)

    known = Names(LookUps(Limits(), look_up))
    acme, globex = TenantId("acme"), TenantId("globex")
    waiting = [asyncio.create_task(known.addresses(tenant, "one.example")) for tenant in (acme, globex, acme)]
    await asyncio.to_thread(turn.wait)
    assert [("2",)] * 3 == await asyncio.gather(*waiting)


async def test_a_cancelled_look_up_is_never_started(hanging: threading.Event) -> None:
    """A queued look-up is never started if all callers that waited for it were cancelled."""
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        hanging.wait()
        return (host,)

    known = Names(LookUps(Limits(look_ups_each=1), look_up))
    waiting = [asyncio.create_task(known.addresses(TenantId("acme"), str(number))) for number in range(100)]
    await asyncio.wait(waiting, timeout=0.1)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.wait(waiting[1:])
    hanging.set()

    assert ("0",) == await waiting[0]
    assert ("last",) == await known.addresses(TenantId("acme"), "last")
    assert ["0", "last"] == asked


async def test_an_answer_is_cached_and_an_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent callers share a look-up, and later ones its cached answer; an error is not cached."""
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        if host == "bad":
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return (host,)

    monkeypatch.setattr(egress_guard, "MAX_KNOWN", 1)
    known = Names(LookUps(Limits(), look_up))
    acme = TenantId("acme")
    for _ in range(2):
        assert [("a",)] * 3 == await asyncio.gather(*[known.addresses(acme, "a") for _ in range(3)])
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await known.addresses(acme, "bad")
    for host in ("b", "a"):
        await known.addresses(acme, host)

    assert ["a", "bad", "bad", "b", "a"] == asked


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "x"), FailureKind.DNS),
        (UnicodeError("label too long"), FailureKind.INVALID_URL),
        (OSError("x"), FailureKind.CONNECTION),
    ],
)
async def test_a_failed_look_up_is_a_value(error: Exception, kind: FailureKind) -> None:
    """Any exception of a look-up becomes a failure of the right kind, and is not raised."""

    def look_up(_host: str) -> Addresses:
        raise error

    async with transport(AddressRules(LOOPBACK), look_up) as sending:
        answer = await sending.send(request_to("http://a.example/"))

    assert isinstance(answer, Failure)
    assert kind is answer.kind
