"""The image alone, beside a PostgreSQL and a Valkey of this machine: the commands of an operator, and a worker."""

import base64
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

from hookseal.embedded.stack import Stack
from tools.image import trial
from tools.image.engine import CommandFailed, Engine, require

_NAME: Final = "hookseal-check-worker"
_DRAIN_SECONDS: Final = 25
_USER: Final = "65532"
_MOUNT: Final = "/run/hookseal"
# Of process 1, read by another process in its container.
_FACTS: Final = """
import importlib.util, json, os
status = dict(line.rstrip().split(":", 1) for line in open("/proc/1/status"))
def refused(folder):
    try:
        open(os.path.join(folder, "written"), "w").close()
    except OSError:
        return True
    return False
print(json.dumps({
    "users": sorted({*status["Uid"].split(), *status["Gid"].split()}),
    "capabilities": sorted({int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    "writable": [each for each in ("/", "/etc", "/opt/hookseal", "/tmp", "/var/tmp", "/run") if not refused(each)],
    "pip": importlib.util.find_spec("pip") is not None,
}))
"""
EXPECTED: Final[dict[str, Any]] = {
    "users": [_USER],
    "capabilities": [0],
    "no_new_privileges": "1",
    "read_only": True,
    "writable": [],
    "pip": False,
}


def try_out(engine: Engine, image: str, servers: Stack, folder: Path) -> dict[str, int]:
    """Install, start, use and stop hookseal by this image alone, and return the counts.

    Raises `CommandFailed` for what a user would see as a failure.
    """
    port, health_port = _free_port(), _free_port()
    made = trial.certificate(folder, "127.0.0.1")
    settings = {
        "DATABASE_URL": servers.postgres.url,
        "REDIS_URL": servers.valkey.url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": base64.b64encode(os.urandom(32)).decode("ascii"),
        "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
        "HOOKSEAL_EGRESS_CA_FILE": f"{_MOUNT}/authority.pem",
        "HOOKSEAL_HEALTH_HOST": "127.0.0.1",
        "HOOKSEAL_HEALTH_PORT": str(health_port),
        "HOOKSEAL_DRAIN_SECONDS": str(_DRAIN_SECONDS),
    }
    common = (
        *engine.restricted,
        *("--network", "host", "--env-file", str(trial.private(folder, "variables", settings))),
        *("--volume", f"{made.authority}:{_MOUNT}/authority.pem:ro"),
    )

    def command(*words: str) -> str:
        return engine("run", "--rm", *common, image, *words)

    command("db", "upgrade")
    command("key", "init")
    url = f"https://127.0.0.1:{port}/hooks"
    added = command(
        *("endpoint", "add", "--tenant", "acme", "--url", url, "--event-type", "*", "--print-secret", "--json")
    )
    secret = str(json.loads(added)["secret"])
    engine("run", "--detach", "--name", _NAME, *common, image)
    lines = folder / "requests"
    try:
        with trial.receiving(made.shown, port, lines):
            trial.eventually(lambda: engine("exec", _NAME, *trial.CHECK) or True, "the exec probe does not succeed")
            facts = json.loads(engine("exec", _NAME, "python", "-P", "-c", _FACTS))
            require(facts == EXPECTED, f"the container is not restricted as deploy/ says: {facts}")
            command("publish", "--tenant", "acme", "--event-type", "invoice.paid", "--data", '{"id": 1}')
            ids = trial.eventually(
                lambda: trial.verified(lines.read_text(encoding="utf-8"), secret), "nothing arrived at the receiver"
            )
            before = time.monotonic()
            engine("stop", "--time", str(_DRAIN_SECONDS + 10), _NAME)
            seconds = time.monotonic() - before
        exit_code = engine("inspect", "--format", "{{.State.ExitCode}}", _NAME).strip()
        require(exit_code == "0", f"SIGTERM ended the worker with {exit_code}")
    except CommandFailed as error:
        raise CommandFailed(f"{error}\n{_log(engine)}") from error
    finally:
        engine("rm", "--force", _NAME)
    print(f"image: user {_USER}, nothing writable, no capability; probed, {len(ids)} delivered and verified")
    print(f"image: SIGTERM ended it with 0 after {seconds:.1f} s")
    return {"delivered": len(ids), "findings": 0}


def _log(engine: Engine) -> str:
    try:
        return engine("logs", "--tail", "20", _NAME)
    except CommandFailed as error:
        return str(error)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
