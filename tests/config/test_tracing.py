"""What hookseal does not accept among the variables of OpenTelemetry, if it makes traces."""

import pytest

from hookseal.config.load import NOTHING, load, split_environment
from hookseal.errors import ConfigError

pytestmark = pytest.mark.req("OPS-03", part="spans")

OTLP = {"HOOKSEAL_TRACING": "OTLP"}
ENDPOINT, HEADERS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be"),
        ({ENDPOINT: "collector:4317"}, f"{ENDPOINT} must be the url of a collector"),
        ({ENDPOINT: "http://[::1"}, f"{ENDPOINT} must be the url of a collector"),
        (
            {ENDPOINT: "http://collector:4318", HEADERS: "k=canary"},
            f"{ENDPOINT} must be https in production: it, or {HEADERS}",
        ),
        ({ENDPOINT: "http://u:canary@collector:4318"}, f"{ENDPOINT} must be https in production"),
        ({HEADERS: "Authorization: Bearer canary"}, f"{HEADERS} must be NAME=VALUE"),
        ({HEADERS: 'a=b,k="canary"'}, f"{HEADERS} must be NAME=VALUE"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "k=canary;x"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS must be NAME=VALUE"),
    ],
)
def test_what_is_unsafe_or_unknown_is_refused(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load({**OTLP, **variables}, needs=NOTHING)

    assert "canary" not in str(caught.value)
    assert not load({**variables}, needs=NOTHING).traces, "without tracing these belong to others"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": ""},
        {ENDPOINT: "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "", HEADERS: ""},
        {ENDPOINT: "http://collector:4318", HEADERS: ""},
        {ENDPOINT: "http://collector:4318"},
        {ENDPOINT: "https://collector/otlp", HEADERS: "k=v", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {ENDPOINT: "http://127.0.0.1:4318", HEADERS: "k=v"},
        {HEADERS: "Authorization=Bearer%20v, k = v==,,"},
        {HEADERS: "Authorization=Bearer v"},
        {ENDPOINT: "http://collector:4318", HEADERS: "k=v", "HOOKSEAL_ENV": "development"},
        {ENDPOINT: "http://c:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces", HEADERS: "k=v"},
    ],
)
def test_others_are_left_to_the_sdk(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And they stay in the environment, where the SDK of each process of a worker reads them."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert load({**OTLP, **variables}, needs=NOTHING).traces
    split = split_environment({**OTLP, **variables})
    assert set(split.environment) == set(variables) - {"HOOKSEAL_ENV"}
    assert load({**split.variables}, needs=NOTHING).traces
