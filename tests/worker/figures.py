"""The figures of a worker as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from hookseal.worker.metrics.counters import WorkerMeter

Figures = dict[tuple[str, str | None], float]


def read(text: str) -> Figures:
    """Return every sample by its name and its label values, joined with a space, or None without labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, " ".join(sample.labels.values()) or None): sample.value for sample in samples}


def figures(meter: WorkerMeter) -> Figures:
    """Return the metrics of hookseal that the meter reports now."""
    body, _ = meter.scrape("text/plain")
    return {key: value for key, value in read(body.decode()).items() if key[0].startswith("hookseal_")}
