"""`hookseal endpoint add` stores an endpoint with a sealed secret, and outputs the secret once."""

import base64
import getpass
import socket
import stat
from pathlib import Path

import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from tests.cli.command import Ended, fed, hookseal, on_a_terminal
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.cli.listeners import black_hole, closed_port
from tests.doubles.stored import MASTER_KEY_TEXT

ADD = ("endpoint", "add", "--tenant", "acme", "--url", "https://receiver.example/hook", "--event-type", "*")
GIVEN = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
NOWHERE = {
    "DATABASE_URL": "postgresql://127.0.0.1:1/db",
    "SECRETS_PROVIDER": "db",
    "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
}


def changed(option: str, value: str) -> tuple[str, ...]:
    """Return the arguments of `endpoint add`, with a different value of one option."""
    if option not in ADD:
        return (*ADD, option, value)
    place = ADD.index(option) + 1
    return (*ADD[:place], value, *ADD[place + 1 :])


def problem(ended: Ended) -> tuple[int, str]:
    """Return the exit code and the field of an error in JSON."""
    assert "" == ended.err
    return ended.code, ended.json["error"]["field"]


@pytest.mark.req("OPS-04", part="json")
async def test_the_json_has_the_documented_fields(begun: Begun) -> None:
    """The JSON has exactly the fields of docs/commands.md, and a secret only with `--print-secret`."""
    ended = await begun.run(*ADD, "--json")
    assert (0, "") == (ended.code, ended.err)
    endpoint = ended.json["endpoint_id"]
    assert {
        "tenant_id": "acme",
        "endpoint_id": endpoint,
        "secret_ref": f"db:acme:webhook-endpoint-{endpoint}:1",
        "previous_secret_ref": None,
        "previous_secret_expires_at": None,
        "generation": 1,
        "rotation_id": None,
        "secret": None,
        "public_key": None,
    } == ended.json
    assert documented("endpoint add").keys() == ended.json.keys()
    printed = await begun.run(*changed("--url", "https://other.example/"), "--json", "--print-secret")
    assert printed.json["secret"].startswith("whsec_")
    assert 32 == len(base64.b64decode(printed.json["secret"].removeprefix("whsec_")))


async def test_the_row_has_every_given_value(begun: Begun) -> None:
    """The row has the given values and each subscription once; the secret is stored only sealed."""
    options = ("--event-type", "invoice.*", "--event-type", "*", "--name", "Büro 1", "--timeout-ms", "20000")
    ended = await begun.run(*ADD, *options, "--json", "--print-secret")
    row = await begun.stored.pool.fetchrow("SELECT * FROM hookseal.endpoints")
    assert row is not None
    assert (ended.json["endpoint_id"], "acme") == (str(row["id"]), row["tenant_id"])
    assert ("https://receiver.example/hook", ["*", "invoice.*"]) == (row["url"], row["event_types"])
    assert ("Büro 1", 20_000, None) == (row["name"], row["timeout_ms"], row["secret"])
    stored = await begun.stored.pool.fetchval("SELECT sealed FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert ended.json["secret"].encode() not in stored


@pytest.mark.req("DEL-08", part="operator-events")
async def test_the_operator_owns_endpoints(begun: Begun) -> None:
    """The operator's own endpoints belong to the tenant `_operator`, for which nobody can publish."""
    ended = await begun.run(*changed("--tenant", "_operator"), "--json")
    assert (0, "_operator") == (ended.code, ended.json["tenant_id"])
    assert [True] == [item["enabled"] for item in (await begun.run("endpoint", "list", "--json")).json["items"]]
    refused = await begun.run("publish", "--tenant", "_operator", "--event-type", "a", "--data", "{}", "--json")
    assert (2, "tenant") == (refused.code, refused.json["error"]["field"])


async def test_the_text_omits_the_secret(begun: Begun) -> None:
    """Without a terminal the text omits the secret and names the command that reveals it."""
    ended = await begun.run(*ADD)
    assert (0, "") == (ended.code, ended.err)
    assert "whsec_" not in ended.out
    assert "secret    not shown\nThe secret is printed only on a terminal" in ended.out
    one = await begun.stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints")
    assert f"\n  hookseal secret reveal --tenant acme --endpoint {one} --secret-out FILE\n" in ended.out
    printed = await begun.run(*changed("--url", "https://other.example/"), "--print-secret")
    assert "\nsecret    whsec_" in printed.out


async def test_a_terminal_shows_the_secret_once(begun: Begun) -> None:
    """On a terminal the secret is printed once; with `--json` or `--secret-out` it is not printed."""
    ended = await on_a_terminal(*ADD, **begun.settings)
    assert (0, 1) == (ended.code, ended.out.count("whsec_"))
    assert "Give the secret to the receiver" in ended.out
    as_json = await on_a_terminal(*changed("--url", "https://other.example/"), "--json", **begun.settings)
    assert as_json.json["secret"] is None


async def test_the_secret_is_written_to_a_private_file(begun: Begun, tmp_path: Path) -> None:
    """The secret is written to a new file that only the user may read, and the file is never overwritten."""
    path = tmp_path / "secret"
    ended = await begun.run(*ADD, "--secret-out", str(path))
    assert 0 == ended.code
    assert f"secret    in {path}\n" in ended.out
    assert "whsec_" not in ended.out
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    written = path.read_text()
    assert written.startswith("whsec_")
    assert written.endswith("=\n")

    again = await begun.run(*changed("--url", "https://other.example/"), "--secret-out", str(path), "--json")
    assert (4, "secret_out") == problem(again)
    assert written == path.read_text()
    assert 1 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_failure_removes_the_secret_file(begun: Begun, tmp_path: Path) -> None:
    """If the command fails after it has created the file, it removes the file."""
    await begun.run(*ADD)
    path = tmp_path / "secret"
    again = await begun.run(*ADD, "--secret-out", str(path), "--json")
    assert (4, "url") == problem(again)
    there = await begun.stored.pool.fetchval("SELECT id::text FROM hookseal.endpoints")
    assert f"the tenant already has an endpoint with this url, {there}" == again.json["error"]["message"]
    unavailable = await hookseal(*ADD, "--secret-out", str(path), **NOWHERE)
    assert 69 == unavailable.code
    assert not path.exists()


async def test_a_given_secret_signs(begun: Begun, tmp_path: Path) -> None:
    """The endpoint signs with the secret from a file or from standard input."""
    path = tmp_path / "given"
    path.write_text(GIVEN + "\n")
    path.chmod(0o600)
    from_file = await begun.run(*ADD, "--secret-file", str(path), "--json", "--print-secret")
    assert GIVEN == from_file.json["secret"]
    other = changed("--url", "https://other.example/")
    from_stdin = await begun.fed(GIVEN.encode() + b"\n", *other, "--secret-file", "-", "--json", "--print-secret")
    assert GIVEN == from_stdin.json["secret"]
    kept = await begun.run(*changed("--url", "https://third.example/"), "--secret-file", str(path), "--json")
    assert kept.json["secret"] is None


@pytest.mark.req("SEC-15", part="secrets")
async def test_an_unusable_secret_file_is_refused(tmp_path: Path) -> None:
    """An absent file, one that others may read, or one without a secret is refused; nothing of it is printed."""
    path = tmp_path / "given"
    path.write_text(GIVEN)
    path.chmod(0o644)
    exposed = await hookseal(*ADD, "--secret-file", str(path), "--json", **NOWHERE)
    assert (5, "secret_file") == problem(exposed)
    missing = await hookseal(*ADD, "--secret-file", str(tmp_path / "nothing"), "--json", **NOWHERE)
    assert (2, "secret_file") == problem(missing)
    short = "whsec_" + base64.b64encode(b"correct-horse-battery-1").decode()
    for text in (short, GIVEN.replace("whsec_", "whsk_"), GIVEN + "x"):
        ended = await fed(text.encode(), *ADD, "--secret-file", "-", "--json", **NOWHERE)
        assert (2, "secret") == problem(ended)
        assert text.partition("_")[2] not in ended.out


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    ("option", "value", "code", "field"),
    [
        ("--tenant", "_system", 2, "tenant"),
        ("--tenant", "ac me", 2, "tenant"),
        ("--event-type", "invoice.", 2, "event_type"),
        ("--event-type", "a.*.b", 2, "event_type"),
        ("--name", "", 2, "name"),
        ("--name", "x" * 129, 2, "name"),
        ("--name", "\x1b[2J", 2, "name"),
        ("--timeout-ms", "99", 2, "timeout_ms"),
        ("--timeout-ms", "20001", 2, "timeout_ms"),
        ("--timeout-ms", "soon", 2, "timeout_ms"),
        ("--scheme", "unheard-of", 2, "scheme"),
        ("--max-attempts", "0", 2, "max_attempts"),
        ("--max-attempts", "101", 2, "max_attempts"),
        ("--backoff-base-seconds", "0", 2, "backoff_base_seconds"),
        ("--backoff-base-seconds", "often", 2, "backoff_base_seconds"),
        ("--backoff-cap-seconds", "604801", 2, "backoff_cap_seconds"),
        ("--retry-schedule", "5", 2, "retry_schedule"),
        ("--retry-schedule", "8d", 2, "retry_schedule"),
        ("--url", "receiver.example/hook", 2, "url"),
        ("--url", "ftp://receiver.example/", 2, "url"),
        ("--url", "https://receiver.example/" + "x" * 2_048, 2, "url"),
        ("--url", "https://user:hunter2@receiver.example/", 2, "url"),
        ("--url", "http://receiver.example/", 5, "url"),
        ("--url", "https://127.0.0.1/", 5, "url"),
        ("--url", "https://[::1]:8443/", 5, "url"),
        ("--url", "https://169.254.169.254/latest/", 5, "url"),
    ],
)
async def test_a_bad_value_names_its_option(option: str, value: str, code: int, field: str) -> None:
    """Each kind of bad value exits with its code and names its option, before a database is contacted."""
    ended = await hookseal(*changed(option, value), "--json", **NOWHERE)
    assert (code, field) == problem(ended)
    assert "hunter2" not in ended.out


@pytest.mark.parametrize("option", ["--max-attempts", "--backoff-base-seconds", "--backoff-cap-seconds"])
async def test_back_off_with_a_schedule_is_refused(option: str) -> None:
    """The options of back-off are refused together with `--retry-schedule`, which replaces them."""
    ended = await hookseal(*ADD, "--retry-schedule", "5s", option, "5", "--json", **NOWHERE)
    assert (2, "retry_schedule") == problem(ended)
    assert option in ended.json["error"]["message"]


async def test_loopback_and_http_must_be_allowed(begun: Begun) -> None:
    """Loopback and http are accepted only where the settings allow them."""
    arguments = changed("--url", "http://127.0.0.1:8080/")
    allowed = {"HOOKSEAL_ALLOW_HTTP": "true", "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8@acme"}
    assert 0 == (await begun.run(*arguments, **allowed)).code
    others = await begun.run(*arguments, *("--tenant", "globex", "--json"), **allowed)
    assert (5, "url") == problem(others)
    assert "HOOKSEAL_EGRESS_ALLOW" in others.json["error"]["message"]
    without_http = await begun.run(*arguments, "--json", HOOKSEAL_EGRESS_ALLOW="127.0.0.0/8")
    assert (5, "url") == problem(without_http)


async def test_a_time_out_must_fit_the_drain(begun: Begun) -> None:
    """A time-out must be 5 s less than the drain, ours or a live worker's; the error says what to raise."""
    ended = await begun.run(*ADD, "--timeout-ms", "5001", "--json", HOOKSEAL_DRAIN_SECONDS="10")
    assert (5, "timeout_ms") == problem(ended)
    assert "at most 5000 ms, 5 s less than HOOKSEAL_DRAIN_SECONDS" in ended.json["error"]["message"]
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids)"
        " VALUES ('w', '1', 12, 45, '{}')"
    )
    fits = await begun.run(*ADD, "--timeout-ms", "7000", "--json", HOOKSEAL_DRAIN_SECONDS="10")
    assert 0 == fits.code
    ended = await begun.run(*changed("--url", "https://other.example/"), "--timeout-ms", "7001", "--json")
    assert (5, "timeout_ms") == problem(ended)


@pytest.mark.req("DEL-04", part="x-webhook")
async def test_x_webhook_accepts_any_text(begun: Begun) -> None:
    """An x-webhook endpoint accepts any text of 16 bytes as its secret, unchanged except for one trailing newline."""
    given = "sechzehn Bytes äö"
    arguments = (*ADD, "--scheme", "x-webhook", "--secret-file", "-", "--json", "--print-secret")
    ended = await begun.fed(given.encode() + b"\n", *arguments)
    assert (0, given) == (ended.code, ended.json["secret"])
    other = changed("--url", "https://other.example/")
    fresh = await begun.run(*other, "--scheme", "x-webhook", "--json", "--print-secret")
    assert fresh.json["secret"].startswith("whsec_")
    rows = await begun.stored.pool.fetch("SELECT scheme FROM hookseal.endpoints")
    assert ["x-webhook", "x-webhook"] == [row["scheme"] for row in rows]
    short = await begun.fed(b"fifteen bytes..", *arguments)
    assert (2, "secret") == problem(short)
    assert (2, "secret") == problem(await begun.fed(given.encode(), *ADD, "--secret-file", "-", "--json"))
    assert (2, "secret") == problem(await begun.fed(b"\xff" * 16, *arguments))


@pytest.mark.req("DEL-06")
async def test_retries_have_back_off_or_a_schedule(begun: Begun) -> None:
    """Retries are configured by back-off, or by a schedule instead; without either there is a default schedule."""
    backoff = ("--max-attempts", "3", "--backoff-base-seconds", "1", "--backoff-cap-seconds", "2")
    assert 0 == (await begun.run(*ADD, *backoff)).code
    assert 0 == (await begun.run(*changed("--url", "https://other.example/"), "--retry-schedule", "5s,5m,2h")).code
    assert 0 == (await begun.run(*changed("--url", "https://third.example/"))).code
    rows = await begun.stored.pool.fetch(
        "SELECT max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule"
        " FROM hookseal.endpoints ORDER BY id"
    )
    first, second, third = [tuple(row) for row in rows]
    assert [(3, 1, 2, None), (10, 30, 43_200, [5, 300, 7_200])] == [first, second]
    assert list(DEFAULT_RETRY_SCHEDULE) == third[-1]


@pytest.mark.req("OPS-10")
async def test_the_audit_row_names_the_actor(begun: Begun) -> None:
    """The audit row names the database role, the user and the machine."""
    await begun.run(*ADD)
    role = await begun.stored.pool.fetchval("SELECT session_user")
    actor = await begun.stored.pool.fetchval("SELECT actor FROM hookseal.audit_log WHERE tenant_id = 'acme'")
    assert f"{role}/{getpass.getuser()}@{socket.gethostname()}" == actor


async def test_a_url_is_unique_within_a_tenant(begun: Begun) -> None:
    """A tenant has at most one endpoint for each url; another tenant may use the same url."""
    assert 0 == (await begun.run(*ADD)).code
    assert (4, "url") == problem(await begun.run(*ADD, "--json"))
    assert 0 == (await begun.run(*changed("--tenant", "globex"))).code


async def test_the_provider_dev_is_refused() -> None:
    """The provider `dev` is refused, since its secrets end with the command; the error names the provider to use."""
    ended = await hookseal(
        *ADD,
        "--json",
        DATABASE_URL="postgresql://127.0.0.1:1/db",
        SECRETS_PROVIDER="dev",
        HOOKSEAL_ENV="development",
    )
    assert (5, "refused") == (ended.code, ended.json["error"]["code"])
    assert "SECRETS_PROVIDER=db" in ended.json["error"]["message"]


@pytest.mark.req("SEC-04", part="key-init")
async def test_without_the_first_key_nothing_is_written(database_url: str) -> None:
    """Without the first key nothing is written, and the error names the command that creates it."""
    ended = await hookseal(*ADD, "--json", **(NOWHERE | {"DATABASE_URL": database_url}))
    assert (78, "configuration") == (ended.code, ended.json["error"]["code"])
    assert "hookseal key init" in ended.json["error"]["message"]


async def test_another_installations_key_writes_nothing(begun: Begun) -> None:
    """With a master key of another installation nothing is written."""
    other = base64.b64encode(bytes(range(50, 82))).decode()
    ended = await begun.run(*ADD, "--json", SECRETS_MASTER_KEY=other)
    assert (78, "configuration") == (ended.code, ended.json["error"]["code"])
    assert 0 == await begun.stored.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_missing_schema_names_the_command(empty_database_url: str) -> None:
    """Without the schema the error names the command that creates it."""
    ended = await hookseal(*ADD, "--json", **(NOWHERE | {"DATABASE_URL": empty_database_url}))
    assert 78 == ended.code
    assert "hookseal db upgrade" in ended.json["error"]["message"]


@pytest.mark.req("OPS-04", part="errors")
async def test_an_unreachable_database_is_named_without_its_password() -> None:
    """If the database does not answer, the error has its address without the password."""
    async with black_hole() as (hole, _):
        for port in (closed_port(), hole):
            url = f"postgresql://user:hunter2@127.0.0.1:{port}/db"
            ended = await hookseal(*ADD, "--json", **(NOWHERE | {"DATABASE_URL": url}))
            assert 69 == ended.code
            assert f"PostgreSQL at 127.0.0.1:{port}" in ended.json["error"]["message"]
            assert "hunter2" not in ended.out


async def test_help_has_an_example() -> None:
    """The help has an example and says where the secret is output."""
    ended = await hookseal("endpoint", "add", "--help")
    assert "Example: hookseal endpoint add" in ended.out
    assert "--secret-out" in ended.out
