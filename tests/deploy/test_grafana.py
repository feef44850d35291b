"""The dashboard: each query parses, and asks for metrics and labels that the service exposes."""

import base64
import json

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from capfilt.catalog import sample
from capfilt.service.config import JobsConfig, ServiceConfig
from capfilt.service.metrics import Metrics
from tests.service.conftest import serving

VARIABLES = {"$__rate_interval": "5m", "$job": ".+"}


@pytest.fixture(scope="module")
def board(deploy):
    return json.loads((deploy / "grafana" / "capfilt.json").read_text())


def samples(text):
    """Labels by name of sample."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found.setdefault(one.name, set()).update(one.labels)
    return found


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Of a service that has answered; and what is declared of that which had nothing to count."""
    folder = tmp_path_factory.mktemp("service")
    config = ServiceConfig(runner="local", jobs=JobsConfig(state=str(folder), runner="local"))
    picture = next((sample() / "images").glob("*.jpg")).read_bytes()
    asks = {"pictures": [{"image": base64.b64encode(picture).decode()}]}
    with serving(config) as address:
        assert httpx.post(f"{address}/v1/caption", json=asks, timeout=60).status_code == 200
        seen = samples(httpx.get(f"{address}/metrics").text)
    assert {"capfilt_pictures_total", "capfilt_request_seconds_bucket", "capfilt_ready"} <= set(seen)
    declared = Metrics()
    declared.refused.labels("queue").inc()
    declared.jobs.labels("running").set(1)
    return samples(declared.text().decode()) | seen


def expressions(board):
    for panel in board["panels"]:
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield panel["title"], text


def selectors(node, by=frozenset()):
    """Every selector of a parsed query, with the labels that are grouped by around it."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node, by
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector, by
    elif isinstance(node, promql_parser.AggregateExpr):
        yield from selectors(node.expr, by | set(node.modifier.labels if node.modifier else ()))
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs, by)
        yield from selectors(node.rhs, by)
    elif isinstance(node, promql_parser.Call):
        for one in node.args:
            yield from selectors(one, by)
    else:
        assert isinstance(node, promql_parser.NumberLiteral), type(node)


def problems(board, exposed):
    found = []
    for title, text in expressions(board):
        asked = list(selectors(promql_parser.parse(text)))
        assert asked, text
        for selector, by in asked:
            wanted = {*by, *(matcher.name for matcher in selector.matchers.matchers)} - {"job"}
            if selector.name not in exposed:
                found.append(f"{title}: {selector.name} is not exposed")
            elif not wanted <= exposed[selector.name]:
                found.append(f"{title}: {selector.name} has no {sorted(wanted - exposed[selector.name])}")
    return found


def test_every_metric_and_label_that_a_panel_asks_for_is_exposed(board, exposed):
    assert problems(board, exposed) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("capfilt_pictures_total", "capfilt_images_total"),
        ("by (kind, outcome)", "by (kind, result)"),
        ("status=", "code="),
    ],
)
def test_a_wrong_name_would_be_found(board, exposed, old, new):
    text = json.dumps(board)
    assert old in text
    assert problems(json.loads(text.replace(old, new)), exposed)


def test_every_metric_of_the_service_is_on_the_dashboard(board, exposed):
    shown = " ".join(text for _, text in expressions(board))
    names = [name for name in exposed if not name.endswith("_created")]
    families = {name.rpartition("_")[0] if name.endswith(("_bucket", "_sum", "_count")) else name for name in names}
    assert {name for name in families if name not in shown} == set()


def test_panels_lie_side_by_side(board):
    cells = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] <= at["x"] + at["w"] <= 24
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"])


def test_prometheus_is_sent_where_the_metrics_are(deploy, understood):
    (scrape,) = yaml.safe_load((deploy / "grafana" / "prometheus.yaml").read_text())["scrape_configs"]
    assert scrape["metrics_path"] == "/metrics"
    assert scrape["static_configs"][0]["targets"] == [f"127.0.0.1:{ServiceConfig().port}"]
    (line,) = [line[2:] for line in (deploy / "grafana.md").read_text().splitlines() if line.startswith("$ capfilt")]
    assert understood(line)["roles"] == ["watch"]
