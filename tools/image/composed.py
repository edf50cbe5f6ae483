"""deploy/compose.yaml as a whole: brought up twice, used by the HTTP API, upgraded to another build, and removed."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import yaml

from tools.image import trial
from tools.image.engine import CommandFailed, Engine, require, run
from tools.image.images import open_files, servers
from tools.records import ROOT

PROJECT: Final = "hookseal-check"
_ADDED: Final = "compose.check.yaml"
_OF_THIS_MACHINE: Final = "machine.yaml"
_CHECK_SECONDS: Final = 2.0
_SYSTEMD: Final = Path("/run/systemd/system")
_SERVERS: Final = ("postgres", "valkey")
_READY: Final = ("http://127.0.0.1:8080/readyz", "http://127.0.0.1:8071/api/v1/health")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The compose project in a folder of its own, with secrets of its own."""

    engine: Engine
    command: Sequence[str]
    folder: Path
    variables: Mapping[str, str]

    def __call__(self, *words: str, seconds: float = 600) -> str:
        """Return what compose prints. Raises `CommandFailed`."""
        files = ("--file", "compose.yaml", "--file", _ADDED, "--file", _OF_THIS_MACHINE)
        return run(
            *self.command,
            "--project-name",
            PROJECT,
            *files,
            *words,
            at=self.folder,
            environment=self.variables,
            seconds=seconds,
        )

    def containers(self) -> list[str]:
        """Return the names of all containers of the project."""
        label = f"label=com.docker.compose.project={PROJECT}"
        return self.engine("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()


def try_out(engine: Engine, command: Sequence[str], folder: Path, build_again: Callable[[], str]) -> dict[str, int]:
    """Bring the project up twice and on another build, deliver each time, and remove it; return the counts."""
    _prepare(engine, folder)
    with engine.served(folder) as variables:
        project = Project(engine=engine, command=command, folder=folder, variables=variables)
        with _health_checks(project):
            return _tried(project, build_again)


def _tried(project: Project, build_again: Callable[[], str]) -> dict[str, int]:
    engine = project.engine
    try:
        _up(project)
        url = "https://receiver:8443/hooks"
        added = _operator(
            project,
            *("endpoint", "add", "--tenant", "acme", "--url", url, "--event-type", "*", "--print-secret", "--json"),
        )
        secret, seen = str(added["secret"]), set[str]()
        token = str(_operator(project, "token", "add", "--name", "check", "--tenant", "*", "--json")["token"])
        _deliver(project, token, secret, seen)
        print("compose: up, one delivered and verified", flush=True)
        _up(project)
        _deliver(project, token, secret, seen)
        print("compose: up again, another one delivered", flush=True)
        image = build_again()
        _up(project)
        _deliver(project, token, secret, seen)
        running = engine("inspect", "--format", "{{.Image}}", _container(project, "worker")).strip()
        is_new = running.removeprefix("sha256:") == image.removeprefix("sha256:")
        require(is_new, f"compose: the worker runs {running} after the upgrade, not {image}")
        print("compose: upgraded to another build, another one delivered", flush=True)
        project("stop", "worker")
        code = engine("inspect", "--format", "{{.State.ExitCode}}", _container(project, "worker")).strip()
        require(code == "0", f"compose: the worker ended with {code}")
    except CommandFailed as error:
        raise CommandFailed(f"{error}\n{_logs(project)}") from error
    finally:
        project("down", "--volumes", "--timeout", "30")
    left = project.containers()
    require(not left, f"compose: `down` left {left}")
    print("compose: down, nothing is left", flush=True)
    return {"delivered": len(seen), "findings": 0}


def _prepare(engine: Engine, folder: Path) -> None:
    """Write what the project consists of: its files as they are, secrets by the script, and a receiver."""
    deploy = ROOT / "deploy"
    shutil.copy(deploy / "compose.yaml", folder)
    for file in (_ADDED, trial.RECEIVER.name):
        shutil.copy(Path(__file__).with_name(file), folder)
    trial.certificate(folder, "receiver")
    run("sh", str(deploy / "compose-secrets.sh"), str(folder / "secrets"))
    services = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"]
    images = servers(engine, {name: services[name]["image"] for name in _SERVERS})
    for name, image in images.items():
        if image != services[name]["image"]:
            print(f"compose: {services[name]['image']} cannot be had here: {name} is that of Debian", flush=True)
    chosen: dict[str, dict[str, Any]] = {name: {"image": image} for name, image in images.items()}
    for name, service in services.items():
        limits = service.get("ulimits", {})
        if limits.get("nofile", 0) > open_files():
            chosen[name] = {"ulimits": limits | {"nofile": open_files()}}  # this machine allows no more
        if engine.program == "podman" and service.get("logging") == {"driver": "local"}:
            chosen.setdefault(name, {})["logging"] = {"driver": "k8s-file"}  # podman does not know the other one
    (folder / _OF_THIS_MACHINE).write_text(yaml.safe_dump({"services": chosen}), encoding="utf-8")


@contextmanager
def _health_checks(project: Project) -> Iterator[None]:
    """Run the health checks of the containers for the length of the block: podman needs systemd, which may not run."""
    ended = Event()

    def check() -> None:
        while not ended.wait(_CHECK_SECONDS):
            for name in project.containers():
                with suppress(CommandFailed):  # it has no health check, is not running any more, or is not healthy
                    project.engine("healthcheck", "run", name)

    is_needed = project.engine.program == "podman" and not _SYSTEMD.is_dir()
    thread = Thread(target=check, daemon=True)
    if is_needed:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if is_needed:
            thread.join()


def _up(project: Project) -> None:
    project("up", "--detach", "--no-build")
    for url in _READY:
        trial.eventually(lambda url=url: _answers(url), f"compose: {url} does not answer 200")  # type: ignore[misc]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):  # noqa: S310 -- two addresses of this machine
            return True
    except OSError:
        return False


def _operator(project: Project, *words: str) -> Any:
    return json.loads(project("run", "--rm", "-T", "operator", *words))


def _deliver(project: Project, token: str, secret: str, seen: set[str]) -> None:
    """Publish an event over the HTTP API, and return when a delivery that was not seen before has arrived."""
    number = len(seen) + 1
    request = urllib.request.Request(
        "http://127.0.0.1:8071/api/v1/app/acme/msg",
        data=json.dumps({"eventType": "invoice.paid", "payload": {"number": number}}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 -- an address of this machine
            pass
    except urllib.error.URLError as error:
        raise CommandFailed(f"compose: the API refuses an event: {error}") from error

    def arrived() -> set[str]:
        lines = project.engine("logs", _container(project, "receiver"))  # those of a new container begin anew
        return {*trial.verified(lines, secret)} - seen

    seen |= trial.eventually(arrived, f"compose: event {number} did not arrive", 60)


def _container(project: Project, service: str) -> str:
    """Return the name of the container of this service. Raises `CommandFailed` if there is none."""
    for name in project.containers():
        if name.replace("_", "-").startswith(f"{PROJECT}-{service}-"):
            return name
    raise CommandFailed(f"compose: {service} has no container")


def _logs(project: Project) -> str:
    parts = []
    for name in project.containers():
        try:
            parts.append(f"{name}: {project.engine('logs', '--tail', '5', name)}")
        except CommandFailed as error:
            parts.append(f"{name}: {error}")
    return "\n".join(parts)
