"""The Kubernetes manifests are valid, restricted, and match each other and the product."""

import stat
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

import hookseal
from hookseal.config.load import load
from hookseal.config.producer import api_needs
from hookseal.config.source import is_exposed
from hookseal.dispatcher.core import url
from hookseal.errors import ConfigError
from hookseal.worker.metrics.definitions import OLDEST_DUE
from tests.deploy.files import (
    ALERTS,
    WORKER_UID,
    container,
    container_environment,
    deployment,
    documents,
    manifests,
    pods,
    resources,
)

pytestmark = pytest.mark.req("OPS-05", part="kubernetes")

MOUNT = "/run/secrets/hookseal"
OLDEST = (1, 27)  # the first version that supports every field by default
VERSIONS = sorted(
    {
        f"{major}.{minor}"
        for major, minor, *_ in (version.split(".") for version in kubernetes_validate.utils.all_versions())
        if (int(major), int(minor)) >= OLDEST
    }
)


KUSTOMIZING = {"Component", "Kustomization"}
OF_THE_OPERATOR = {"PrometheusRule", "ServiceMonitor"}  # resources of the Prometheus Operator, not of every cluster


def _everything() -> Iterator[tuple[str, dict[str, Any]]]:
    for file, found in manifests().items():
        yield from ((file, document) for document in found if document["kind"] not in KUSTOMIZING)


LONG_RUNNING = ("hookseal-worker", "hookseal-api")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(version: str) -> None:
    for _, document in _everything():
        if document["kind"] not in OF_THE_OPERATOR:
            assert version == kubernetes_validate.validate(document, version, strict=True)


def test_kustomizations_list_every_manifest() -> None:
    """Each kustomization lists all manifests in its folder but the example, and sets the image of this version.

    A component adds to another kustomization, which sets the image.
    """
    for file, (kustomization,) in (item for item in manifests().items() if item[0].endswith("kustomization.yaml")):
        beside = {other for other in manifests() if Path(other).parent == Path(file).parent}
        listed = {str(Path(file).parent / name) for name in kustomization["resources"]}
        images = [("hookseal", hookseal.__version__)] if kustomization["kind"] == "Kustomization" else []
        assert beside - {file, "secret.example.yaml"} == listed
        assert images == [(i["name"], i["newTag"]) for i in kustomization.get("images", ())]


def test_no_namespace_is_named() -> None:
    """No manifest has a namespace: it is chosen when the manifest is applied."""
    assert [] == [file for file, document in _everything() if "namespace" in document["metadata"]]


def test_pods_are_restricted() -> None:
    """Every pod meets the profile `restricted` of the Pod Security Standards, with a read-only root.

    It has no access to the API of the cluster.
    """
    for pod in pods():
        spec, only = pod["spec"], container(pod)
        assert (True, WORKER_UID, WORKER_UID) == tuple(
            spec["securityContext"][name] for name in ("runAsNonRoot", "runAsUser", "fsGroup")
        )
        assert "RuntimeDefault" == spec["securityContext"]["seccompProfile"]["type"]
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == only["securityContext"]
        assert (False, False) == (spec["automountServiceAccountToken"], spec["enableServiceLinks"])
        assert "memory" in only["resources"]["limits"]
        assert {"secret", "projected"} >= {kind for volume in spec["volumes"] for kind in volume} - {"name"}


def test_a_stop_waits_for_the_drain() -> None:
    """The grace period is ten seconds longer than pause and drain, and an update never has fewer pods."""
    for name in LONG_RUNNING:
        spec = deployment(name)["spec"]
        pod = spec["template"]
        _, pause = container(pod).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ("", "0"))

        drain = int(container_environment(pod)["HOOKSEAL_DRAIN_SECONDS"])
        assert pod["spec"]["terminationGracePeriodSeconds"] >= int(pause) + drain + 10
        assert 0 == spec["strategy"]["rollingUpdate"]["maxUnavailable"]
        assert spec["replicas"] >= 2


def test_selectors_match_their_pods() -> None:
    """Every selector of worker and API matches its own pods, the policy of the jobs theirs, and each port."""
    budgets, policies = _by_name("PodDisruptionBudget"), _by_name("NetworkPolicy")
    services = {
        "hookseal-worker": {"hookseal-metrics": "health"},
        "hookseal-api": {"hookseal-api": "http", "hookseal-api-metrics": "health"},
    }
    assert {name for each in services.values() for name in each} == _by_name("Service").keys()
    for name in LONG_RUNNING:
        spec = deployment(name)["spec"]
        labels = spec["template"]["metadata"]["labels"]
        selectors = [
            spec["selector"]["matchLabels"],
            budgets[name]["spec"]["selector"]["matchLabels"],
            policies[name]["spec"]["podSelector"]["matchLabels"],
            *(_by_name("Service")[service]["spec"]["selector"] for service in services[name]),
        ]
        assert [labels] * len(selectors) == selectors
        for job in resources("Job"):
            own = job["spec"]["template"]["metadata"]["labels"].items()
            assert policies["hookseal-job"]["spec"]["podSelector"]["matchLabels"].items() <= own
            assert not labels.items() <= own
        ports = {port["name"] for port in container(spec["template"])["ports"]}
        for service, target in services[name].items():
            assert [target] == [port["targetPort"] for port in _by_name("Service")[service]["spec"]["ports"]]
        assert set(services[name].values()) == ports


def test_the_api_reaches_only_its_servers() -> None:
    """The API reaches PostgreSQL, Valkey and a name server, and no address outside of the cluster."""
    rules = _by_name("NetworkPolicy")["hookseal-api"]["spec"]["egress"]

    assert [] == [block for rule in rules for block in rule["to"] if "ipBlock" in block]
    assert {53, 5432, 6379} == {port["port"] for rule in rules for port in rule["ports"]}


def test_the_worker_reaches_public_addresses_only() -> None:
    """Besides its own servers a worker reaches exactly the public addresses of the egress guard, at port 443."""
    policy = _by_name("NetworkPolicy")["hookseal-worker"]
    rules = policy["spec"]["egress"]
    open_to = [block["ipBlock"] for rule in rules for block in rule["to"] if "ipBlock" in block]
    blocks = {ip_network(block["cidr"]): {ip_network(network) for network in block["except"]} for block in open_to}

    assert {
        ip_network("0.0.0.0/0"): _widest([network for network, _ in url._REFUSED_V4]),
        url._GLOBAL_UNICAST_V6: _widest(
            [network for network, _ in url._REFUSED_V6 if network.subnet_of(url._GLOBAL_UNICAST_V6)]
        ),
    } == blocks
    assert [{"protocol": "TCP", "port": 443}] == rules[-1]["ports"]
    assert ["Ingress", "Egress"] == policy["spec"]["policyTypes"]


def _widest(networks: list[IPv4Network] | list[IPv6Network]) -> set[IPv4Network | IPv6Network]:
    return {one for one in networks if not any(one != other and one.subnet_of(other) for other in networks)}  # type: ignore[arg-type]


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: container(pod)["name"])
def test_mounted_secrets_are_private(pod: dict[str, Any]) -> None:
    """Files of root that the group of the pod may read are accepted by hookseal as private."""
    context = pod["spec"]["securityContext"]
    for volume in pod["spec"]["volumes"]:
        mode: int = (volume.get("secret") or volume["projected"])["defaultMode"]
        assert context["fsGroup"] == context["runAsGroup"]
        assert mode & stat.S_IRGRP
        assert not is_exposed(mode, owner=0, reader=context["runAsUser"])


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: container(pod)["name"])
def test_every_named_file_is_mounted(pod: dict[str, Any]) -> None:
    """Each variable with a file names a mounted key of the example secrets."""
    example = {s["metadata"]["name"]: set(s["stringData"]) for s in resources("Secret")}
    mounted: set[str] = set()
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            mounted |= example[volume["secret"]["secretName"]]
        for source in volume.get("projected", {}).get("sources", ()):
            names = {item["key"] for item in source["secret"]["items"]}
            assert names <= example[source["secret"]["name"]]
            mounted |= names

    named = {value for name, value in container_environment(pod).items() if name.endswith("_FILE")}
    assert {f"{MOUNT}/{name}" for name in mounted} == named
    assert [MOUNT] == [mount["mountPath"] for mount in container(pod)["volumeMounts"]]


def test_mounted_settings_load(tmp_path: Path) -> None:
    """With real values in the secrets, the settings of both deployments load in production. The API has no keys."""
    values = {
        "database_url": "postgresql://hookseal_app:password@postgres:5432/app",
        "redis_url": "redis://valkey:6379/0",
        "master_key": "7yyrkuc1ed1FZi0YxFzajm8mpnMX8VMElPYFusAJKMQ=",
    }
    assert "postgres:5432" == load(_mounted("hookseal-worker", values, tmp_path)).database.address
    del values["master_key"]
    mounted = _mounted("hookseal-api", values, tmp_path)
    loaded = load(mounted, needs=api_needs(mounted))
    assert ("postgres:5432", "valkey:6379", None) == (
        loaded.database.address,
        loaded.redis.address,
        loaded.loaded_secrets,
    )


def test_placeholders_are_refused(tmp_path: Path) -> None:
    """Every placeholder of the example is reported as invalid, and nothing starts."""
    examples = (("hookseal-worker", "hookseal", {"SECRETS_MASTER_KEY"}), ("hookseal-api", "hookseal-api", set[str]()))
    for name, secret, others in examples:
        example = _by_name("Secret")[secret]["stringData"]
        mounted = _mounted(name, example, tmp_path)
        with pytest.raises(ConfigError) as refused:
            load(mounted, needs=api_needs(mounted))

        variables = {problem.replace(":", " ").split()[0] for problem in refused.value.problems}
        assert {"DATABASE_URL", "REDIS_URL", *others} == variables


def _by_name(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in resources(kind)}


def _mounted(name: str, values: Mapping[str, str], folder: Path) -> dict[str, str]:
    for key, value in values.items():
        (folder / key).unlink(missing_ok=True)
        (folder / key).write_text(value)
        (folder / key).chmod(0o400)
    environment = container_environment(deployment(name)["spec"]["template"])
    return {name: value.replace(MOUNT, str(folder)) for name, value in environment.items()}


def test_prometheus_finds_every_service_with_metrics() -> None:
    """The monitor selects both services with metrics, by a port that they and no other service have."""
    monitor = _by_name("ServiceMonitor")["hookseal"]["spec"]
    (endpoint,) = monitor["endpoints"]
    with_port = {
        name
        for name, service in _by_name("Service").items()
        if endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    }

    assert {"hookseal-metrics", "hookseal-api-metrics"} == with_port
    for name in with_port:
        assert monitor["selector"]["matchLabels"].items() <= _by_name("Service")[name]["metadata"]["labels"].items()


def test_the_operators_rules_are_the_alerts() -> None:
    """The resource of the Prometheus Operator has all groups of deploy/prometheus, and nothing else."""
    assert documents(ALERTS)[0] == _by_name("PrometheusRule")["hookseal"]["spec"]


def test_the_autoscaler_follows_the_age_of_what_may_be_sent() -> None:
    """It scales the workers, never below what the manifest starts, on a metric that exists in seconds.

    Its component takes the number of the manifest away: each `apply` would set it.
    """
    scaler = _by_name("HorizontalPodAutoscaler")["hookseal-worker"]["spec"]
    worker = deployment("hookseal-worker")
    (metric,) = scaler["metrics"]
    (patch,) = manifests()["autoscaling/kustomization.yaml"][0]["patches"]

    assert {"apiVersion": worker["apiVersion"], "kind": "Deployment", "name": "hookseal-worker"} == scaler[
        "scaleTargetRef"
    ]
    assert worker["spec"]["replicas"] == scaler["minReplicas"] < scaler["maxReplicas"]
    assert "External" == metric["type"]
    assert OLDEST_DUE.name == metric["external"]["metric"]["name"]
    assert {"kind": "Deployment", "name": "hookseal-worker"} == patch["target"]
    assert [{"op": "remove", "path": "/spec/replicas"}] == yaml.safe_load(patch["patch"])
