"""Parses the files of deploy/."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yaml"
SCENARIOS: Final = DEPLOY / "prometheus" / "alerts.test.yaml"
RUNBOOK: Final = ROOT / "docs" / "runbook.md"
RUNBOOK_OF_KEYS: Final = ROOT / "docs" / "runbook-keys.md"
WORKER_UID: Final = 65_532
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, which not every build includes


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The last stage of the Dockerfile."""

    entrypoint: list[str]
    command: list[str]
    healthcheck: list[str]
    environment: dict[str, str]
    user: str
    stop_signal: str
    copied: list[str]


def image() -> Image:
    stages: list[list[tuple[str, str]]] = []
    for name, rest in _instructions((DEPLOY / "Dockerfile").read_text(encoding="utf-8")):
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((name, rest))
    last = dict(stages[-1])
    copies = (rest.split()[:-1] for stage in stages for name, rest in stage if name == "COPY")
    return Image(
        entrypoint=json.loads(last["ENTRYPOINT"]),
        command=json.loads(last["CMD"]),
        healthcheck=json.loads(last["HEALTHCHECK"].partition("CMD ")[2]),
        environment=dict(assignment.split("=", 1) for assignment in last["ENV"].split()),
        user=last["USER"],
        stop_signal=last["STOPSIGNAL"],
        copied=[source for copy in copies if not copy[0].startswith("--from=") for source in copy],
    )


def documents(file: Path) -> list[Any]:
    return list(yaml.load_all(file.read_text(encoding="utf-8"), _LOADER))


def compose() -> dict[str, Any]:
    content: dict[str, Any] = documents(DEPLOY / "compose.yaml")[0]
    return content


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Return the documents of every manifest of Kubernetes, by its path."""
    return {str(file.relative_to(KUBERNETES)): documents(file) for file in sorted(KUBERNETES.rglob("*.yaml"))}


def resources(kind: str) -> list[dict[str, Any]]:
    return [document for found in manifests().values() for document in found if document["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    return [owner["spec"]["template"] for kind in ("Deployment", "Job") for owner in resources(kind)]


def deployment(name: str) -> dict[str, Any]:
    (found,) = (each for each in resources("Deployment") if each["metadata"]["name"] == name)
    return found


def container(pod: Mapping[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    return dict(only)


def container_environment(pod: Mapping[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(pod)["env"]}


def unit() -> list[tuple[str, str]]:
    """Return the settings of the systemd unit, in order."""
    text = (DEPLOY / "systemd" / "hookseal-worker.service").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def unit_environment() -> dict[str, str]:
    """Return the variables that the systemd unit sets."""
    return dict(value.split("=", 1) for name, value in unit() if name == "Environment")


def alerts() -> list[dict[str, Any]]:
    groups = documents(ALERTS)[0]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, text
    return int(found[1])


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name, rest.strip()
