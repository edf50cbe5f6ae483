"""The dashboard shows metrics that exist, and a real Prometheus that scrapes a real worker answers all its queries."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from hookseal.postgres.pool import Pool
from hookseal.worker.metrics.definitions import METRICS
from tests.cli.listeners import closed_port
from tests.deploy.files import DEPLOY
from tests.deploy.queries import metric_of, require_known, require_rates, selectors
from tests.worker.waiting import eventually
from tests.worker.world import World, receiving, world

pytestmark = pytest.mark.req("OPS-05", part="dashboard")

BOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "hookseal.json").read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES: Final[list[str]] = [target["expr"] for panel in PANELS for target in panel["targets"]]
_CONFIGURATION: Final = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: hookseal
    static_configs: [{{targets: ["{target}"]}}]
"""


def test_every_metric_and_label_exists() -> None:
    for query in QUERIES:
        require_known(query)
        require_rates(query.replace("[$__rate_interval]", "[5m]"))


def test_every_panel_says_what_it_shows() -> None:
    """Each panel has a title of its own, a unit, and what docs/metrics.md says of each metric in it."""
    titles = [panel["title"] for panel in PANELS]
    assert len({*titles}) == len(titles)
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            for name, _ in selectors(target["expr"]):
                metric = metric_of(name)
                assert metric is not None
                assert metric.text in panel["description"], panel["title"]


def test_nearly_every_metric_is_shown() -> None:
    """These are not on the dashboard, since a graph of them says nothing."""
    named = [metric_of(name) for query in QUERIES for name, _ in selectors(query)]

    assert {
        "hookseal_build_info",
        "hookseal_process_restarts_total",
        "hookseal_processes",
        "hookseal_replay_idle_seconds",
        "hookseal_replay_skipped_total",
        "hookseal_secret_cache_bytes",
        "hookseal_secret_cache_entries",
        "hookseal_secret_cache_evictions_total",
    } == {metric.name for metric in METRICS} - {metric.name for metric in named if metric is not None}


async def test_a_real_prometheus_answers_every_query(
    pool: Pool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Every query is valid; what a worker that has delivered measures has a value."""
    if shutil.which("prometheus") is None:
        pytest.skip("there is no Prometheus (Debian's package prometheus)")
    here: World = await world(pool, database_url, redis_url, tmp_path)
    async with receiving() as receiver, here.worker() as worker:
        await here.endpoint(f"{receiver.base_url}/hooks")
        await here.deliver()
        async with _prometheus(str(worker.ready["health_url"]), tmp_path) as client:

            async def is_scraped() -> bool:
                return bool(await _answer(client, "count_over_time(hookseal_due[5m]) > 2"))

            await eventually(is_scraped)
            empty = [query for query in QUERIES if not await _answer(client, query)]

    # What only failing endpoints, stopped tenants and the API have.
    assert {
        "hookseal_breaker_open_seconds",
        "hookseal_endpoint_failing_seconds",
        "hookseal_tenant_stopped_seconds",
        "hookseal_api_requests_total",
        "hookseal_api_request_seconds_bucket",
    } == {name for query in empty for name, _ in selectors(query)}


async def _answer(client: httpx.AsyncClient, query: str) -> list[Any]:
    for variable in ("$__rate_interval", "$__range"):
        query = query.replace(variable, "5m")
    response = await client.get("/api/v1/query", params={"query": query})
    assert 200 == response.status_code, f"{query}: {response.text}"
    found: list[Any] = response.json()["data"]["result"]
    return found


@asynccontextmanager
async def _prometheus(url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus on a free port, scraping this address every second, and yield a client of it."""
    (folder / "prometheus.yaml").write_text(_CONFIGURATION.format(target=url.removeprefix("http://")))
    address = f"127.0.0.1:{closed_port()}"
    options = (
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    with subprocess.Popen(["prometheus", *options]) as process:  # noqa: ASYNC220 -- it is started at once
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}") as client:

                async def is_ready() -> bool:
                    try:
                        return (await client.get("/-/ready")).is_success
                    except httpx.TransportError:
                        return False

                await eventually(is_ready)
                yield client
        finally:
            process.kill()
