"""The dashboard and the alerts use only metrics that a worker exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from harasocial_dispatch.cli import commands
from harasocial_dispatch.schemas import Settings
from prometheus_client.parser import text_string_to_metric_families
from support.scrape import MixedTraffic

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]

#: Labels that Prometheus adds.
ITS_OWN = {"job", "instance"}
#: Functions for counters and for gauges. A counter's value and a gauge's rate are meaningless.
FOR_COUNTERS = {"rate", "increase"}
FOR_GAUGES = {"min_over_time", "max_over_time", "delta"}
OTHER_WORDS = {"sum", "min", "max", "by", "and", "or", "histogram_quantile", "absent"}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for rule in RULES:
        yield rule["alert"], rule["expr"]


EXPRESSIONS = dict(expressions())


@dataclass
class Metric:
    """The type and the labels of a sample name in the scrape."""

    type: str
    #: Label → its values.
    labels: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def metrics(mixed_traffic: MixedTraffic) -> dict[str, Metric]:
    """Every sample name of a real worker, after all kinds of messages."""
    found: dict[str, Metric] = {}
    for family in text_string_to_metric_families(mixed_traffic.scrape.text()):
        for sample in family.samples:
            metric = found.setdefault(sample.name, Metric(family.type))
            for label, value in sample.labels.items():
                metric.labels.setdefault(label, set()).add(value)
    return found


#: A metric's name, its selector if there is one, and its range.
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?\s*(\[[^\]]+\])?")
MATCHER = re.compile(r"""\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)""")
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Use:
    """A metric in an expression, and the function that is applied to it, if any."""

    name: str
    selector: str
    has_range: bool
    function: str


def uses_in(expression: str) -> list[Use]:
    """Find every metric in an expression: every name that is not a keyword of PromQL."""
    found = []
    text = GROUPING.sub(lambda grouping: " " * len(grouping.group()), expression)
    for match in SELECTOR.finditer(text):
        name, selector, span = match.groups()
        if name in FOR_COUNTERS | FOR_GAUGES | OTHER_WORDS:
            continue
        around = re.search(r"(\w+)\s*\(\s*$", text[: match.start()])
        found.append(Use(name, selector or "", span is not None, around[1] if around else ""))
    return found


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_uses_existing_metrics_and_labels(
    metrics: dict[str, Metric], title: str
) -> None:
    """Its metrics, labels and values exist, and functions match the type of the metric."""
    expression = EXPRESSIONS[title]
    labels_of_all = set(ITS_OWN)
    uses = uses_in(expression)
    assert uses
    for use in uses:
        assert use.name in metrics, f"no worker exposes {use.name}"
        metric = metrics[use.name]
        labels_of_all |= metric.labels.keys()
        matchers = MATCHER.findall(use.selector)
        assert MATCHER.sub("", use.selector).strip() == ""
        for label, operator, value in matchers:
            if label in ITS_OWN:
                continue
            assert label in metric.labels, f"{use.name} has no label {label}"
            wanted = value.split("|") if operator in ("=~", "!~") else [value]
            assert set(wanted) <= metric.labels[label], f"{use.name}{{{label}}} has other values"
        is_gauge = metric.type == "gauge"
        assert use.has_range == (use.function in FOR_COUNTERS | FOR_GAUGES)
        assert (use.function in FOR_COUNTERS) == (not is_gauge)
    for grouping in GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels_of_all


def test_legends_use_remaining_labels() -> None:
    """The legend of a label that `sum` removed would be empty."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            left = {
                label.strip()
                for grouping in GROUPING.findall(target["expr"])
                for label in grouping.split(",")
            }
            assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"])) <= left


def test_every_metric_is_on_the_dashboard(metrics: dict[str, Metric]) -> None:
    """Every metric has a panel."""
    shown = {
        use.name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for use in uses_in(target["expr"])
    }
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in metrics}
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in shown} == families


def test_the_dashboard_can_be_imported() -> None:
    """Its data source is a variable. Panels have unique ids and do not overlap."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = DASHBOARD["panels"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used - {"__rate_interval"} == variables.keys()
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_the_commands_and_settings_in_alerts_exist(rule: dict[str, Any]) -> None:
    """The descriptions of alerts contain only real commands and settings."""
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    text = rule["annotations"]["description"]
    for name in re.findall(r"harasocial-dispatch ([a-z]+)", text):
        assert name in commands.commands
    settings = {f"HARASOCIAL_{each.name.upper()}" for each in fields(Settings)}
    assert set(re.findall(r"HARASOCIAL_[A-Z_]+", text)) <= settings
