"""The figures of a worker as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from hookseal.worker.meter import WorkerMeter

Figures = dict[tuple[str, str | None], float]


def read(text: str) -> Figures:
    """Return every sample by its name and the values of its labels with a space between them, None without one."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, " ".join(sample.labels.values()) or None): sample.value for sample in samples}


def figures(meter: WorkerMeter) -> Figures:
    """Return what the meter says now."""
    body, _ = meter.scrape("text/plain")
    return read(body.decode())
