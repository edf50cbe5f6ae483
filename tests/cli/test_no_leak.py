"""No output of a command at the most detailed log level, successful or not, has a secret that was not requested."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.command import Ended
from tests.cli.command_server import Many, many
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port
from tests.doubles.legacy import legacy
from tests.worker.canary import Canary, search
from tests.worker.leak_places import tables
from tests.worker.leaking import CLIENTS, FLIP_A_BIT, HMAC, NEWER, OWN, PAIR, TEXT, TOKEN, all_canaries
from tests.worker.verbose_process import INSERTING, verbose_settings

MALFORMED = b"whsec_canary-of-a-secret-that-is-malformed"
MALFORMED_WHPK = b"whpk_" + MALFORMED
MALFORMED_HEADER = b"canary-of-a-header-that-is-\xe9-malformed"
OTHER_KEY = os.urandom(32)
CLIENT = CLIENTS["RSA client key"]
BROKEN_KEY = CLIENT.key.replace(b"MII", b"MIJ", 1)
PASSWORD = "canary-of-a-wrong-password"
ALLOWED = {
    "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
    "HOOKSEAL_ALLOW_HTTP": "true",
    "HOOKSEAL_LOG_LEVEL": "debug",
}


Named = tuple[str, ...]


class Commands:
    """Runs commands on one installation, at the most detailed log level, and collects their output."""

    def __init__(self, begun: Begun, folder: Path, process: Many) -> None:
        self.begun = begun
        self.folder = folder
        self.printed: dict[str, bytes] = {}
        self._process = process

    def file(self, name: str, content: bytes, *, mode: int = 0o600) -> str:
        """Return a file with this content, private unless another mode is given."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    async def run(self, expected: int, *arguments: str, **changes: str) -> Ended:
        """Run a command that must end with that exit code."""
        ended = await self._process.run(*arguments, **(self.begun.settings | ALLOWED | changes))
        assert (expected, arguments) == (ended.code, arguments), ended.err
        self.printed[f"{len(self.printed)} {' '.join(arguments)}"] = (ended.out + ended.err).encode()
        return ended

    async def added(self, name: str, secret: bytes, *more: str, expected: int = 0) -> tuple[str, ...]:
        """Add an endpoint with this secret and all headers; return the options that name it."""
        lines = "".join(f"{header}: {value.decode()}\n" for header, value in OWN.items())
        ended = await self.run(
            expected,
            *("endpoint", "add", "--tenant", "acme", "--url", f"http://127.0.0.1:9/{name}", "--event-type", "*"),
            *("--secret-file", self.file(f"{name}.secret", secret), "--secret-out", f"{self.folder / name}.out"),
            *("--headers-file", self.file(f"{name}.headers", lines.encode()), "--json", *more),
            *("--client-cert", self.file(f"{name}.crt", CLIENT.certificate)),
            *("--client-key", self.file(f"{name}.key", CLIENT.key)),
        )
        return ("--tenant", "acme", "--endpoint", ended.json.get("endpoint_id", ""))


@pytest.fixture
async def commands(begun: Begun, tmp_path: Path) -> AsyncIterator[Commands]:
    """Yield commands at log level debug, on an installation that has begun."""
    async with many(verbose_settings(tmp_path / "loud", worker=False)) as process:
        yield Commands(begun, tmp_path, process)


async def leaked_secrets(commands: Commands) -> list[str]:
    """Return which secrets are in the collected output."""
    begun = commands.begun
    known = await all_canaries(begun.stored, begun.settings["DATABASE_URL"], begun.settings["REDIS_URL"])
    return search(
        commands.printed,
        [
            *known,
            Canary("secret that is malformed", (MALFORMED,)),
            Canary("header that is malformed", (MALFORMED_HEADER,)),
            Canary("master key of another", (OTHER_KEY, base64.b64encode(OTHER_KEY))),
            Canary("password that is wrong", (PASSWORD.encode(),)),
        ],
    )


@pytest.mark.req("SEC-15")
async def test_a_success_prints_only_requested_secrets(commands: Commands) -> None:
    """A successful command prints a secret only if it was asked to print it."""
    hmac = await commands.added("hmac", HMAC.reveal())
    text = await commands.added("text", TEXT.reveal(), "--scheme", "x-webhook")
    pair = await commands.added("pair", PAIR.reveal(), "--algorithm", "ed25519")
    newer = commands.file("newer", NEWER.reveal())
    await commands.run(0, "endpoint", "rotate", *hmac, "--secret-file", newer, "--no-wait", "--json")
    headers = commands.file("headers", b"X-Key: " + TOKEN + b"\n")
    out = str(commands.folder / "revealed")
    await commands.run(0, "endpoint", "update", *text, "--headers-file", headers)
    await commands.run(0, "endpoint", "show", *hmac, "--json")
    await commands.run(0, "endpoint", "public-key", *pair)
    await commands.run(0, "secret", "versions", *hmac, "--json")
    await commands.run(0, "secret", "reveal", *text, "--secret-out", out, "--json")
    await commands.run(0, "key", "status")
    await commands.run(0, "key", "rotate-integrity", "--json")
    await commands.run(0, "audit", "export")
    await commands.run(0, "audit", "verify", "--json")
    await with_client_keys(commands, hmac, text, pair)
    assert [] == await leaked_secrets(commands)
    # The search does find the secret that was requested.
    await commands.run(0, "secret", "reveal", *text, "--print-secret", "--json")
    assert ["x-webhook secret"] == sorted(
        {line.split(": ")[1].partition(" as ")[0] for line in await leaked_secrets(commands)}
    )
    assert TEXT.reveal() + b"\n" == read(out)


async def with_client_keys(commands: Commands, hmac: Named, text: Named, pair: Named) -> None:
    """Set a client key, remove it, and send with one."""
    others = CLIENTS["EC client key"]
    given = ("--client-cert", commands.file("c", others.certificate), "--client-key", commands.file("k", others.key))
    await commands.run(0, "endpoint", "update", *text, *given, "--json")
    await commands.run(0, "endpoint", "update", *text, "--remove-client-cert")
    await commands.run(1, "endpoint", "test", *hmac, "--json")
    await commands.run(1, "endpoint", "test", *pair)


@pytest.mark.req("SEC-15")
async def test_a_failure_prints_no_secret(commands: Commands) -> None:
    """A command that is refused, or has an internal error, prints no secret that it has read."""
    hmac = await commands.added("hmac", HMAC.reveal())
    text = await commands.added("text", TEXT.reveal(), "--scheme", "x-webhook")
    await commands.begun.stored.pool.execute(FLIP_A_BIT, text[-1])
    newer, bad = commands.file("newer", NEWER.reveal()), commands.file("bad", MALFORMED)
    exposed = commands.file("exposed", HMAC.reveal(), mode=0o644)
    headers = commands.file("headers", b"X-Key: " + MALFORMED_HEADER + b"\n")
    certificate, broken = commands.file("crt", CLIENT.certificate), commands.file("broken", BROKEN_KEY)
    another = commands.file("another", CLIENTS["EC client key"].key)
    open_key = commands.file("open.key", CLIENT.key, mode=0o644)
    body, request = commands.file("body", b"{}"), commands.file("request", b"X-Key: " + TOKEN + b"\n")
    await commands.added("hmac", NEWER.reveal(), "--name", "twice", expected=4)
    await commands.added("malformed", MALFORMED, expected=2)
    await commands.added("other", PAIR.reveal(), expected=2)
    await commands.added(INSERTING[1:], NEWER.reveal(), expected=70)
    for expected, arguments in (
        (2, ("endpoint", "update", *hmac, "--headers-file", headers)),
        (5, ("endpoint", "rotate", *hmac, "--secret-file", exposed, "--json")),
        (2, ("endpoint", "update", *hmac, "--client-cert", certificate, "--client-key", broken)),
        (2, ("endpoint", "update", *hmac, "--client-cert", certificate, "--client-key", another, "--json")),
        (2, ("endpoint", "update", *hmac, "--client-cert", another, "--client-key", another)),
        (2, ("endpoint", "update", *hmac, "--client-cert", certificate)),
        (2, ("endpoint", "update", *hmac, "--ca-file", broken)),
        (5, ("endpoint", "update", *hmac, "--client-cert", certificate, "--client-key", open_key)),
        (5, ("endpoint", "test", *text)),
        (2, ("endpoint", "rotate", *hmac, "--secret-file", bad, "--json")),
        (4, ("endpoint", "rotate", *hmac, "--expect-generation", "9", "--secret-file", newer)),
        (2, ("secret", "reveal", *hmac, "--json")),
        (5, ("secret", "reveal", *text, "--print-secret")),
        (1, ("verify", "--secret-file", newer, "--headers-file", request, "--body-file", body)),
        (4, ("key", "init", "--json")),
    ):
        await commands.run(expected, *arguments)
    assert [] == await leaked_secrets(commands)
    assert any(b"Traceback" in printed and b"a fault of ours" in printed for printed in commands.printed.values())


@pytest.mark.req("SEC-12", "SEC-15")
async def test_migration_and_import_print_no_secret(commands: Commands) -> None:
    """Migration and import print no secret, successful or not; afterwards no table contains one in the clear."""
    pool = commands.begun.stored.pool
    for number, secret in enumerate((TEXT.reveal(), MALFORMED * 9, MALFORMED_WHPK)):
        await legacy(pool, secret.decode(), url=f"https://receiver.example/{number}")
    cells = (
        "acme,https://receiver.example/new,*,",
        f"acme,http://127.0.0.1:9{INSERTING},*,",
        "acme,https://r.example,",
    )
    header, good = b"tenant_id,url,event_types,secret\n", cells[0].encode() + TEXT.reveal().replace(b",", b"")
    csv = commands.file("good.csv", header + good + b"\n" + good + MALFORMED + b"\n")
    defect = commands.file("f.csv", header + cells[1].encode() + NEWER.reveal())
    for expected, arguments in (
        (1, ("migrate-secrets", "--dry-run", "--json")),
        (1, ("migrate-secrets", "--json")),
        (1, ("migrate-secrets",)),
        (5, ("migrate-secrets", "--finalize")),
        (1, ("import-endpoints", "--from-csv", csv, "--dry-run", "--json")),
        (1, ("import-endpoints", "--from-csv", csv)),
        (1, ("import-endpoints", "--from-csv", commands.file("row.csv", header + cells[2].encode() + MALFORMED * 9))),
        (1, ("import-endpoints", "--from-csv", commands.file("q.csv", header + good + b',"' + MALFORMED + b'"x\n'))),
        (2, ("import-endpoints", "--from-csv", commands.file("none.csv", good + MALFORMED))),
        (5, ("import-endpoints", "--from-csv", commands.file("open.csv", header + good, mode=0o644))),
        (70, ("import-endpoints", "--scheme", "standard", "--from-csv", defect)),
    ):
        await commands.run(expected, *arguments)
    assert [] == await leaked_secrets(commands)
    assert any(b"Traceback" in printed and b"a fault of ours" in printed for printed in commands.printed.values())

    await pool.execute("UPDATE hookseal.endpoints SET secret = NULL WHERE secret_ref IS NULL")
    await commands.run(0, "migrate-secrets", "--finalize", "--json")
    own = [Canary("x-webhook secret", (TEXT.reveal(),)), Canary("malformed", (MALFORMED,))]
    assert [] == search(await tables(pool), own) == search(commands.printed, own)


@pytest.mark.req("SEC-15")
async def test_wrong_settings_print_no_key_or_password(commands: Commands) -> None:
    """A worker or a command with wrong settings does not print their key or password."""
    other = base64.b64encode(OTHER_KEY).decode()
    url = urlsplit(commands.begun.settings["DATABASE_URL"])
    refused = url._replace(netloc=f"{url.username}:{PASSWORD}@{url.hostname}:{url.port}").geturl()
    nobody = f"postgresql://hookseal:{PASSWORD}@127.0.0.1:{closed_port()}/hookseal"
    await commands.run(78, "worker", SECRETS_MASTER_KEY=other)
    await commands.run(78, "key", "rotate-integrity", "--json", SECRETS_MASTER_KEY=other)
    await commands.run(78, "key", "status", SECRETS_MASTER_KEY=MALFORMED.decode())
    await commands.run(69, "audit", "list", DATABASE_URL=refused)
    await commands.run(69, "worker", "--json", DATABASE_URL=nobody)
    await commands.run(69, "worker", REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{closed_port()}/0")
    assert [] == await leaked_secrets(commands)


def read(path: str) -> bytes:
    """Return the content of a file."""
    return Path(path).read_bytes()
