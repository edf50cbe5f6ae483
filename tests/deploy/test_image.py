"""The image passes the linter, has no unneeded rights, and its commands run as written."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookseal.postgres.pool import Pool
from tests.cli.command import DEADLINE_SECONDS
from tests.cli.listeners import closed_port
from tests.cli.test_worker import get
from tests.deploy.files import DEPLOY, ROOT, WORKER_UID, container, deployment, image
from tests.deploy.launch import ended, environment, running
from tests.deploy.programs import program
from tests.doubles.stored import MASTER_KEY_TEXT, begin
from tools.image import trial

pytestmark = pytest.mark.req("OPS-05", part="image")


def test_hadolint_reports_nothing() -> None:
    """The linter of Dockerfiles reports nothing, not even style."""
    run = subprocess.run([program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (0, "", "") == (run.returncode, run.stdout, run.stderr)


def test_the_image_runs_as_a_numeric_user() -> None:
    """User and group are numeric, so that Kubernetes can verify they are not root; SIGTERM ends it."""
    assert (f"{WORKER_UID}:{WORKER_UID}", "SIGTERM") == (image().user, image().stop_signal)


def test_probes_and_api_listen_on_all_interfaces() -> None:
    """The image listens on all interfaces, since 127.0.0.1 is the container itself."""
    hosts = {image().environment[name] for name in ("HOOKSEAL_HEALTH_HOST", "HOOKSEAL_API_HOST")}

    assert {"0.0.0.0"} == hosts  # noqa: S104 -- that is the point


def test_every_copied_file_reaches_the_builder() -> None:
    """Every source of a COPY exists and is not excluded by .dockerignore; no other file is included."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    let_in = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]

    assert "*" == patterns[0]
    assert sorted(let_in) == sorted(image().copied)
    assert [] == [source for source in let_in if not (ROOT / source).exists()]
    assert not any(fnmatch(source, pattern) for source in let_in for pattern in patterns[1:] if pattern[0] != "!")


def test_build_tools_have_locked_versions() -> None:
    pinned = {
        file: {line.split(" ")[0] for line in (ROOT / "requirements" / file).read_text().splitlines() if "==" in line}
        for file in ("build.txt", "dev.txt")
    }

    assert set() == pinned["build.txt"] - pinned["dev.txt"]
    assert any(name.startswith("hatchling==") for name in pinned["build.txt"])


async def test_the_commands_of_the_image_run_as_written(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Entry point and default command run a worker; health check and probes report it ready, and SIGTERM ends it.

    After that the health check fails. Nothing writes a file.
    """
    built = image()
    await begin(pool)
    variables = environment(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SECRETS_PROVIDER": "db",
            "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
        },
        port=closed_port(),
    )
    probes = container(deployment("hookseal-worker")["spec"]["template"])
    paths = [probes[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]

    async with running([*built.entrypoint, *built.command], variables, tmp_path) as (process, ready):
        assert ("worker.ready", process.pid) == (ready["event"], ready["pid"])
        assert 0 == (await ended(built.healthcheck, variables, tmp_path)).code
        for path in (*paths, "/metrics"):
            assert b"HTTP/1.1 200 OK" == await get(ready["health_url"] + path), path
        process.send_signal(getattr(signal, built.stop_signal))
        await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert 0 == process.returncode
    assert 69 == (await ended(built.healthcheck, variables, tmp_path)).code
    assert [] == _names(tmp_path)


def test_make_image_counts_only_signed_requests() -> None:
    """A line of the receiver counts once it is verified, also with the name of a service before it."""
    secret, other = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
    now = datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", now, "{}")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    line = json.dumps({"headers": headers, "body": "{}"})

    assert ["msg_1", "msg_1"] == trial.verified(f"{line}\nreceiver-1  | {line}\nready\n", secret)
    with pytest.raises(WebhookVerificationError):
        trial.verified(line, other)


def test_without_an_engine_nothing_is_proven(tmp_path: Path) -> None:
    """`make image` says so, and why, and does not fail."""
    command = [sys.executable, "-m", "tools.image"]
    ended = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert (0, "") == (ended.returncode, ended.stdout)
    assert "NOTHING WAS PROVEN: neither docker nor podman answers here" in ended.stderr


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]
