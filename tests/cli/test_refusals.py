"""What commands refuse: the exit code and the field of each refusal, with which nothing is changed.

Which values are refused is proven where they are checked, in `tests/admin` and below. Here each option is given to its
command once in a wrong form.
"""

import shlex
from collections.abc import AsyncIterator

import pytest

from tests.cli.command import Ended
from tests.cli.in_turn import InTurn
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port
from tests.doubles.stored import MASTER_KEY_TEXT

pytestmark = pytest.mark.req("OPS-04", part="errors")

UNKNOWN = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
REF = f"db:acme:webhook-endpoint-{UNKNOWN}:1"
NOWHERE = {
    "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:1/db",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SECRETS_PROVIDER": "db",
    "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
}
ADD = "endpoint add --tenant acme --url https://receiver.example/hook --event-type '*'"
OF = f"--tenant acme --endpoint {UNKNOWN}"
PUBLISH = "publish --tenant acme --event-type invoice.paid"
TOKEN = "token add --name billing --tenant acme"
START = "replay start --tenant acme"

# Refused before a database is contacted. A later value of an option replaces an earlier one.
MALFORMED: list[tuple[str, int, str | None]] = [
    (f"{ADD} --tenant _system", 2, "tenant"),
    (f"{ADD} --event-type a.*.b", 2, "event_type"),
    (f"{ADD} --name ''", 2, "name"),
    (f"{ADD} --timeout-ms 99", 2, "timeout_ms"),
    (f"{ADD} --timeout-ms soon", 2, "timeout_ms"),
    (f"{ADD} --scheme unheard-of", 2, "scheme"),
    (f"{ADD} --scheme x-webhook --algorithm ed25519", 2, "algorithm"),
    (f"{ADD} --max-attempts 0", 2, "max_attempts"),
    (f"{ADD} --timeout 1m", 2, "timeout_ms"),
    (f"{ADD} --backoff-base-seconds often", 2, "backoff_base_seconds"),
    (f"{ADD} --backoff-base 500ms", 2, "backoff_base_seconds"),
    (f"{ADD} --backoff-cap 8d", 2, "backoff_cap_seconds"),
    (f"{ADD} --retry-schedule 5", 2, "retry_schedule"),
    (f"{ADD} --retry-schedule 8d", 2, "retry_schedule"),
    (f"{ADD} --retry-schedule 5s --max-attempts 3", 2, "retry_schedule"),
    (f"{ADD} --url https://user:hunter2@receiver.example/", 2, "url"),
    (f"{ADD} --url https://169.254.169.254/latest/", 5, "url"),
    (f"{ADD} --secret-file /nowhere", 2, "secret_file"),
    (f"{ADD} --secret-file - --headers-file -", 2, "headers_file"),
    (f"{ADD} --client-cert - --client-key -", 2, "headers_file"),
    (f"{ADD} --ca-file /nowhere", 2, "ca_file"),
    (f"{ADD} --on-dead-letter stop", 2, "on_dead_letter"),
    (f"{ADD} --uid 'a b'", 2, "uid"),
    ("endpoint show --tenant acme", 2, "endpoint"),
    (f"endpoint show {OF} --uid a", 2, "endpoint"),
    (f"{ADD} --metadata a", 2, "metadata"),
    (f"{ADD} --metadata a=1 --metadata a=2", 2, "metadata"),
    (f"endpoint update {OF} --uid a --remove-uid", 2, "remove_uid"),
    (f"endpoint update {OF} --channel a --remove-channels", 2, "remove_channels"),
    (f"{ADD} --channel 'a b'", 2, "channel"),
    (f"{PUBLISH} --data 1 --channel 'a b'", 2, "channel"),
    (f"endpoint update {OF} --metadata a=1 --remove-metadata", 2, "remove_metadata"),
    (f"endpoint update {OF}", 2, None),
    (f"endpoint update {OF} --expect-generation 1", 2, None),
    (f"endpoint update {OF} --lead both", 2, "lead"),
    (f"endpoint update {OF} --concurrency many", 2, "concurrency"),
    (f"endpoint update {OF} --rate 5", 2, "rate"),
    (f"endpoint update {OF} --retry-schedule never", 2, "retry_schedule"),
    (f"endpoint update {OF} --header 'x: y' --remove-header X", 2, "remove_header"),
    (f"endpoint update {OF} --headers-file - --remove-header x", 2, "remove_header"),
    *(
        (f"{command} {options}", 2, field)
        for command in (ADD, f"endpoint update {OF}")
        for options, field in (
            ("--header no-colon", "header"),
            ("--header 'Host: x'", "header"),
            ("--header 'x: y' --header 'X: z'", "header"),
            ("--headers-file /nowhere", "headers_file"),
            ("--rotate-every 31", "rotate_every_days"),
            ("--rotate-every weekly", "rotate_every_days"),
            ("--rotate-every \u0667", "rotate_every_days"),
            (f"--rotate-every {'1' * 5_000}", "rotate_every_days"),
        )
    ),
    ("endpoint list --tenant _system", 2, "tenant"),
    ("endpoint list --limit many", 2, "limit"),
    ("endpoint show --tenant acme", 2, "endpoint"),
    ("endpoint show --tenant acme --endpoint x/y", 2, "endpoint"),
    ("endpoint stats --endpoint a-uid", 2, "tenant"),
    ("delivery list --endpoint a-uid", 2, "tenant"),
    (f"endpoint enable --tenant 'ac me' --endpoint {UNKNOWN}", 2, "tenant"),
    (f"endpoint disable {OF} --reason ''", 2, "reason"),
    ("endpoint delete --tenant acme --endpoint x/y", 2, "endpoint"),
    (f"endpoint rotate {OF} --overlap 604801", 2, "overlap"),
    (f"endpoint rotate {OF} --overlap 1w", 2, "overlap"),
    (f"endpoint rotate {OF} --rotation-id no/slash", 2, "rotation_id"),
    (f"endpoint end-overlap {OF} --when-switched --expect-generation 2", 2, "expect_generation"),
    (f"endpoint rotate {OF} --lead both", 2, "lead"),
    (f"endpoint rotate {OF} --scheme none", 2, "scheme"),
    ("secret versions --tenant acme --endpoint x/y", 2, "endpoint"),
    (f"secret versions --tenant _system --endpoint {UNKNOWN}", 2, "tenant"),
    ("secret reveal --tenant acme --endpoint x/y --print-secret", 2, "endpoint"),
    ("secret purge --older-than 3651", 2, "older_than"),
    ("secret purge --older-than -1", 2, "older_than"),
    ("secret purge --tenant _x", 2, "tenant"),
    ("delivery list --tenant _system", 2, "tenant"),
    ("delivery list --endpoint x/y", 2, "endpoint"),
    ("delivery list --state lost", 2, "state"),
    ("delivery list --since yesterday", 2, "since"),
    ("delivery list --until 1w", 2, "until"),
    ("delivery list --signed-by 7", 2, "signed_by"),
    (f"delivery list --signed-by {REF} --tenant globex", 2, "signed_by"),
    (f"delivery list --signed-by {REF} --endpoint {UNKNOWN[:-1]}5", 2, "signed_by"),
    ("delivery show x", 2, "delivery"),
    ("delivery attempts --tenant acme", 2, "endpoint"),
    ("delivery attempts --tenant acme --event-id e --event-type a.*", 2, "event_type"),
    ("delivery attempts --tenant acme --event-id e --status-class 6", 2, "status_class"),
    ("event list --tenant _system", 2, "tenant"),
    ("event list --tenant acme --since yesterday", 2, "since"),
    ("event show 'a b' --tenant acme", 2, "event_id"),
    (f"{START} --rate 0/s", 2, "rate"),
    (f"{START} --state pending", 2, "state"),
    (f"{START} --state delivered --all-states", 2, "all_states"),
    (f"{START} --until 2026-01-31T12:00:00", 2, "until"),
    (f"{START} --event-id 'a b'", 2, "event_id"),
    ("replay start", 2, "tenant"),
    ("replay cancel x", 2, "replay"),
    ("audit list --tenant _other", 2, "tenant"),
    ("audit list --action endpoint.burnt", 2, "action"),
    ("audit export --tenant 'a b'", 2, "tenant"),
    *(
        (f"producer {command} {options}", code, field)
        for command in ("grant", "revoke", "list")
        for options, code, field in (
            ("--role '' --tenant acme", 2, "role"),
            ("--role hookseal_producer --tenant acme", 5, "role"),
            ("--role app --tenant _system", 2, "tenant"),
        )
    ),
    *(
        (f"{TOKEN} {option}", 2, field)
        for option, field in (
            ("--name a/b", "name"),
            ("--tenant _operator", "tenant"),
            ("--scope all", "scope"),
            ("--expires 90", "expires"),
            ("--expires 9001-01-01Z", "expires"),
        )
    ),
    *(
        (f"tenant add {option}", 2, field)
        for option, field in (
            ("--tenant _operator", "tenant"),
            ("--uid 'a b'", "uid"),
            ("--uid acme --tenant globex", "uid"),
            ("--name ''", "name"),
        )
    ),
    ("event-type add --name a..b", 2, "name"),
    ("event-type add --name a.b --example '{'", 2, "example"),
    ("event-type list --cursor ''", 2, "cursor"),
    ("event-type remove --name a..b", 2, "name"),
    ("tenant delete --tenant _system --yes", 2, "tenant"),
    ("tenant delete --tenant acme", 2, "yes"),
    ("token list --tenant _system", 2, "tenant"),
    ("portal link --tenant acme --expires 1w", 2, "expires"),
    ("portal link --tenant acme", 78, "HOOKSEAL_PORTAL_URL"),
    ("token revoke --name ''", 2, "name"),
    *(
        (f"key {command} 0123456789ABCDEF", 2, "key_id")
        for command in ("promote", "rewrap", "retire", "destroy", "compromise", "versions")
    ),
    (PUBLISH, 2, "data"),
    (f"{PUBLISH} --data 1 --file -", 2, "data"),
    (f"{PUBLISH} --file - --raw-file -", 2, "data"),
    (f"{PUBLISH} --data 1 --tenant _system", 2, "tenant"),
    (f"{PUBLISH} --data 1 --tenant _operator", 2, "tenant"),
    (f"{PUBLISH} --data 1 --event-type 'invoice.*'", 2, "event_type"),
    (f"{PUBLISH} --data 1 --event-id 'a b'", 2, "event_id"),
    (f"{PUBLISH} --data 1 --correlation-id \udcff", 2, "correlation_id"),
    (f"{PUBLISH} --data '\"\udcff\"'", 2, "data"),
    (f"{PUBLISH} --file /nowhere", 2, "file"),
]

# Refused by what is stored: one endpoint, with a url and a secret of its own, and nothing else.
STORED: list[tuple[str, int, str | None]] = [
    (f"{ADD}", 4, "url"),
    (f"{ADD} --tenant _operator --ordered", 5, "ordered"),
    ("endpoint update {of} --ordered", 5, "ordered"),
    ("endpoint update {of} --on-dead-letter skip", 2, "on_dead_letter"),
    ("endpoint update {of} --name x --expect-generation 7", 4, "expect_generation"),
    ("endpoint update {of} --timeout-ms 20000", 5, "timeout_ms"),
    ("endpoint update {of} --name x --remove-header y", 3, "header"),
    ("endpoint update {of} --remove-ca", 3, "remove_ca"),
    ("endpoint rotate {of} --expect-generation 7", 4, "expect_generation"),
    ("endpoint rotate {of} --secret-file -", 2, "secret"),
    ("endpoint rollback {of}", 4, "endpoint"),
    ("endpoint end-overlap {of}", 4, "endpoint"),
    ("endpoint end-overlap {of} --when-switched", 4, "endpoint"),
    ("endpoint public-key {of}", 5, "endpoint"),
    *(
        (f"{command} {option}", 2, option.split()[0][2:])
        for command in ("endpoint list", "delivery list", "audit list")
        for option in ("--limit 0", "--limit 1001", "--cursor !")
    ),
    ("delivery list --event-id e1", 2, "event_id"),
    (f"delivery list --signed-by {REF}", 3, "signed_by"),
    *((f"delivery {command} {UNKNOWN}", 3, "delivery") for command in ("show", "why", "replay", "skip")),
    ("event show e1 --tenant acme", 3, "event_id"),
    ("delivery attempts --tenant acme --event-id e1", 3, "event_id"),
    (f"delivery resend --tenant acme --event-id e1 --endpoint {UNKNOWN}", 3, "event_id"),
    ("event show e1 --tenant acme --payload", 3, "event_id"),
    (START, 3, None),
    (f"replay status {UNKNOWN}", 3, "replay"),
    (f"replay cancel {UNKNOWN}", 3, "replay"),
    ("producer grant --role nobody-of-this-name --tenant acme", 3, "role"),
    ("producer revoke --role nobody-of-this-name --tenant acme", 3, "role"),
    (f"{TOKEN} --expires 2026-01-31T12:00:00Z", 2, "expires"),
    ("token revoke --name never-added", 3, "name"),
    ("tenant add --tenant acme", 4, "tenant"),
    ("tenant delete --tenant never-added --yes", 3, "tenant"),
    ("tenant list --limit 0", 2, "limit"),
    ("endpoint stats --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394", 2, "tenant"),
    ("endpoint stats --sort pending --cursor 0197c1f0-5e6a-7c3b-9d2e-4f5061728394", 2, "cursor"),
    ("tenant list --cursor never-added", 2, "cursor"),
    ("token list --cursor !", 2, "cursor"),
    ("audit heads --tenant never-seen", 3, "tenant"),
    ("audit verify --tenant never-seen", 3, "tenant"),
]

NAMING_AN_ENDPOINT = (
    "endpoint show",
    "endpoint update --name x",
    "endpoint enable",
    "endpoint retry",
    "endpoint disable",
    "endpoint delete --yes",
    "endpoint rotate",
    "endpoint rollback",
    "endpoint end-overlap",
    "endpoint rotation-status",
    "endpoint public-key",
    "endpoint test",
    "secret versions",
    "secret reveal --print-secret",
)
# One command of each kind: it reads, it changes, it takes several steps, it publishes, it begins an installation.
KINDS = ("delivery list", ADD, f"endpoint rotate {OF}", f"{PUBLISH} --data 1", "key init", "db status", "audit verify")
SECRET = tuple(kind for kind in KINDS if kind.startswith(("endpoint", "key", "audit")))


@pytest.fixture
async def in_turn() -> AsyncIterator[InTurn]:
    """Yield a process for commands that contact no database."""
    process = InTurn()
    yield process
    await process.end()


async def run(in_turn: InTurn, command: str, **settings: str) -> Ended:
    """Run the command with `--json` and these settings."""
    return await in_turn.run((*shlex.split(command), "--json"), settings, b"")


def refusal(ended: Ended) -> tuple[int, str | None]:
    """Return the exit code and the field of the refusal, which does not show a password."""
    assert ("", False) == (ended.err, "hunter2" in ended.out)
    return ended.code, ended.json["error"]["field"]


async def test_a_malformed_value_names_its_option(in_turn: InTurn) -> None:
    """Each is refused with its exit code and the name of its option, before a database is contacted."""
    assert MALFORMED == [(command, *refusal(await run(in_turn, command, **NOWHERE))) for command, _, _ in MALFORMED]


async def test_a_refusal_changes_nothing(begun: Begun) -> None:
    """What does not fit the installation is refused with its exit code and the name of its option."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    of = f"--tenant acme --endpoint {endpoint}"
    settings = begun.settings | {"HOOKSEAL_DRAIN_SECONDS": "20"}
    before = await stored(begun)
    assert STORED == [
        (command, *refusal(await run(begun.in_turn, command.replace("{of}", of), **settings)))
        for command, _, _ in STORED
    ]
    assert before == await stored(begun)


@pytest.mark.req("SEC-08")
async def test_another_tenants_endpoint_is_not_found(begun: Begun) -> None:
    """For another tenant's endpoint the answer is the same as for one that does not exist, and nothing changes."""
    theirs = f"--tenant globex --endpoint {(await begun.stored.endpoint()).pointer.endpoint_id}"
    before = await stored(begun)
    for command in NAMING_AN_ENDPOINT:
        of_another = await run(begun.in_turn, f"{command} {theirs}", **begun.settings)
        absent = await run(begun.in_turn, f"{command} {OF}", **begun.settings)
        assert (3, "endpoint", absent) == (*refusal(of_another), of_another), command
    assert before == await stored(begun)


async def stored(begun: Begun) -> list[object]:
    """Return every row that a refused command might have changed."""
    tables = ("endpoints", "secret_records", "audit_log", "deliveries", "replays", "producers", "api_tokens", "tenants")
    return [await begun.stored.pool.fetch(f"SELECT * FROM hookseal.{table}") for table in tables]  # noqa: S608 -- ours


async def test_no_answer_names_the_address(in_turn: InTurn) -> None:
    """Without PostgreSQL each kind of command exits 69 with the address, and without the password."""
    port = closed_port()
    settings = NOWHERE | {"DATABASE_URL": f"postgresql://user:hunter2@127.0.0.1:{port}/db"}
    for command in KINDS:
        ended = await run(in_turn, command, **settings)
        assert (69, None) == refusal(ended), command
        assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in ended.json["error"]["message"]


@pytest.mark.req("SEC-04", part="key-init")
async def test_a_missing_schema_or_key_names_the_command(
    in_turn: InTurn, empty_database_url: str, database_url: str
) -> None:
    """Without the schema, or without the first key, each kind of command exits 78 and names what creates it."""
    for url, commands, named in (
        (empty_database_url, [kind for kind in KINDS if kind != "db status"], "hookseal db upgrade"),
        (database_url, [kind for kind in SECRET if kind != "key init"], "hookseal key init"),
    ):
        for command in commands:
            ended = await run(in_turn, command, **(NOWHERE | {"DATABASE_URL": url}))
            assert (78, "configuration") == (ended.code, ended.json["error"]["code"]), command
            assert named in ended.json["error"]["message"], command


async def test_the_provider_dev_is_refused(in_turn: InTurn) -> None:
    """The provider `dev` is refused, since its secrets end with the command; the error names the one to use."""
    for command in SECRET:
        ended = await run(
            in_turn, command, DATABASE_URL=NOWHERE["DATABASE_URL"], SECRETS_PROVIDER="dev", HOOKSEAL_ENV="development"
        )
        assert (5, None) == refusal(ended), command
        assert ended.json["error"]["message"].endswith(": set SECRETS_PROVIDER=db")
