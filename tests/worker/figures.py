"""The figures of a worker as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from hookseal.worker.meter import WorkerMeter

Figures = dict[tuple[str, str | None], float]


def read(text: str) -> Figures:
    """Return every sample by its name and the value of its label, None without one."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert [] == [sample for sample in samples if len(sample.labels) > 1]
    return {(sample.name, next(iter(sample.labels.values()), None)): sample.value for sample in samples}


def figures(meter: WorkerMeter) -> Figures:
    """Return what the meter says now."""
    body, _ = meter.scrape("text/plain")
    return read(body.decode())
