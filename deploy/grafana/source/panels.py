"""What the dashboards are made of: queries, panels that look alike, variables and links.

Queries are PromQL as it stands in Grafana. A counter is summed over its stitchers after its rate was taken, never before:
each sidecar's data directory counts for itself, and one that ends would else look like a sum that falls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_shapes
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from realtime_otel_sidecar.checks.probe import SERVICE as PROBE

PROMETHEUS: Final = model.DataSourceRef("prometheus", "prometheus")
JAEGER: Final = model.DataSourceRef("jaeger", "jaeger")
"""By the uids of provisioning/datasources."""

REAL: Final = f'service_name!="{PROBE}"'
"""No probe of ``realtime-otel check``."""
CHOSEN: Final = f'service_name=~"$service", deployment_environment_name=~"$environment", {REAL}'
"""The conversations that the variables choose."""
OF_MODEL: Final = f'{CHOSEN}, gen_ai_request_model=~"$model"'
QUANTILES: Final = (0.5, 0.95, 0.99)
SMALLEST_STEP: Final = "1m"
"""Conversations are few: a finer step shows single ones, and gaps between."""


# --- Queries --------------------------------------------------------------------------------------------------------


class Query(NamedTuple):
    """PromQL, and what its series are called (``{{label}}`` is a label's value)."""

    expression: str
    legend: str = ""
    exemplars: bool = False
    """Show the traces behind the values; the expression has to select counters or buckets."""


def rate(metric: str, where: str = CHOSEN, by: str = "") -> str:
    """How much a counter grows in a second, over all stitchers."""
    return f"sum{_by(by)} (rate({metric}{{{where}}}[$__rate_interval]))"


def per_minute(metric: str, where: str = CHOSEN, by: str = "") -> str:
    return f"60 * {rate(metric, where, by)}"


def total(metric: str, where: str = CHOSEN, by: str = "") -> str:
    """How much a counter has grown in the time that the dashboard shows."""
    return f"sum{_by(by)} (increase({metric}{{{where}}}[$__range]))"


def quantile(of: float, histogram: str, where: str = OF_MODEL, by: str = "", window: str = "$__rate_interval") -> str:
    """A quantile of all stitchers' measurements: their buckets are added up first."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({of}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[{window}])))"


def share(part: str, whole: str) -> str:
    """A part of a whole, from 0 to 1. The part may have no series yet."""
    return f"({part} or 0 * {whole}) / {whole}"


def quantiles(histogram: str, where: str = OF_MODEL, *, exemplars: bool = True) -> list[Query]:
    """Three of them. The exemplars of one are those of all."""
    shown = QUANTILES[1] if exemplars else None
    return [Query(quantile(of, histogram, where), f"{of * 100:g} %", exemplars=of == shown) for of in QUANTILES]


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    targets = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expression).range()
        target.legend_format(query.legend or "__auto").exemplar(query.exemplars).datasource(PROMETHEUS)
        targets.append(target)
    return targets


# --- Panels ---------------------------------------------------------------------------------------------------------


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    span: int = 8,
    height: int = 8,
    stacked: bool = False,
    most: float | None = None,
    limit: float | None = None,
    links: Sequence[dashboard.DashboardLink] = (),
) -> timeseries.Panel:
    """Lines over time. ``most``: where the axis ends; ``limit``: a line that is better not crossed."""
    panel = timeseries.Panel().title(title).description(description).datasource(PROMETHEUS).unit(unit).min(0)
    panel.targets(list(_targets(queries))).span(span).height(height).interval(SMALLEST_STEP).data_links(list(links))
    legend = common.VizLegendOptions().show_legend(show_legend=True).placement(shapes.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(shapes.LegendDisplayMode.LIST).calcs([]))
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
    panel.tooltip(tooltip.sort(shapes.SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(25 if stacked else 8).show_points(shapes.VisibilityMode.AUTO)
    panel.span_nulls(5 * 60 * 1000)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if most is not None:
        panel.max(most)
    if limit is not None:
        panel.thresholds(_thresholds([("green", None), ("red", limit)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    return panel


def number(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    steps: Sequence[tuple[str, float | None]] = (("blue", None),),
    span: int = 4,
    decimals: int | None = None,
    empty: str = "none",
) -> stat.Panel:
    """The newest value, large. ``steps``: colours, and the values from which they hold."""
    panel = stat.Panel().title(title).description(description).datasource(PROMETHEUS).unit(unit)
    panel.targets([_targets([Query(expression)])[0].instant()]).span(span).height(4).no_value(empty)
    panel.thresholds(_thresholds(steps)).graph_mode(shapes.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.color_mode(shapes.BigValueColorMode.VALUE)
    return panel if decimals is None else panel.decimals(decimals)


def density(title: str, description: str, histogram: str, where: str = OF_MODEL, *, span: int = 8) -> heatmap.Panel:
    """How many measurements fall into each bucket, over time."""
    panel = heatmap.Panel().title(title).description(description).datasource(PROMETHEUS).span(span).height(8)
    expression = f"sum by (le) (increase({histogram}_bucket{{{where}}}[$__rate_interval]))"
    target = _targets([Query(expression, "{{le}}", exemplars=True)])[0].format(PromQueryFormat.HEATMAP)
    panel.targets([target]).interval(SMALLEST_STEP).calculate(calculate=False)
    panel.color(heatmap.HeatmapColorOptions().mode(heatmap_shapes.HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
    panel.y_axis(heatmap.YAxisConfig().unit("s"))
    return panel


class Column(NamedTuple):
    """A column of a table: its query, its name, its unit."""

    expression: str
    name: str
    unit: str


def rows(
    title: str,
    description: str,
    by: Mapping[str, str],
    columns: Sequence[Column],
    *,
    span: int = 24,
    height: int = 8,
    links: Sequence[tuple[str, str]] = (),
) -> table.Panel:
    """A table with a row for each value of the labels ``by`` (and what these are called), one column a query.

    ``links``: title and address, on the first column.
    """
    panel = table.Panel().title(title).description(description).datasource(PROMETHEUS).span(span).height(height)
    targets = _targets([Query(column.expression) for column in columns])
    panel.targets([target.instant().format(PromQueryFormat.TABLE) for target in targets])
    values = {f"Value #{chr(ord('A') + number)}": column for number, column in enumerate(columns)}
    panel.with_transformation(model.DataTransformerConfig("merge", options={}))
    names = dict(by) | {value: column.name for value, column in values.items()}
    organize = {"excludeByName": {"Time": True}, "renameByName": names, "indexByName": _order(names)}
    panel.with_transformation(model.DataTransformerConfig("organize", options=organize))
    for column in columns:
        panel.override_by_name(column.name, [model.DynamicConfigValue("unit", column.unit)])
    if links:
        first = next(iter(by.values()))
        panel.override_by_name(first, [model.DynamicConfigValue("links", [_link(*link) for link in links])])
    return panel


def _order(names: Mapping[str, str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _thresholds(steps: Sequence[tuple[str, float | None]]) -> dashboard.ThresholdsConfig:
    shown = [model.Threshold(value=value, color=color) for color, value in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(shown)


# --- Links to traces ------------------------------------------------------------------------------------------------


def search(service: str, tags: str = "", operation: str = "") -> str:
    """The address of a search for traces, in Grafana's Explore. Variables of Grafana stand in it as they are."""
    query: dict[str, Any] = {"refId": "A", "datasource": {"type": "jaeger", "uid": "jaeger"}, "queryType": "search"}
    query |= {"service": service, "limit": 50}
    query |= {"operation": operation} if operation else {}
    query |= {"tags": tags} if tags else {}
    shown = {"from": "${__from}", "to": "${__to}"}
    panes = {"traces": {"datasource": "jaeger", "queries": [query], "range": shown}}
    encoded = quote(json.dumps(panes, separators=(",", ":")), safe="${}.:_")
    return f"/explore?schemaVersion=1&orgId=1&panes={encoded}"


def traces(title: str, service: str, tags: str = "", operation: str = "") -> dashboard.DashboardLink:
    """A link from a point to the traces of its service, in the time that the dashboard shows."""
    return dashboard.DashboardLink(title).url(search(service, tags, operation)).target_blank(target_blank=True)


def _link(title: str, url: str) -> dict[str, Any]:
    return {"title": title, "url": url}


# --- Dashboards -----------------------------------------------------------------------------------------------------


def chooser(name: str, label: str, values: str, description: str = "") -> dashboard.QueryVariable:
    """A variable with a label's values, all of them at first. A series without the label is in "All"."""
    variable = dashboard.QueryVariable(name).label(label).description(description).datasource(PROMETHEUS)
    variable.query({"qryType": 1, "query": values, "refId": name}).refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable.sort(model.VariableSort.ALPHABETICAL_ASC).multi(multi=True).include_all(include_all=True).all_value(".*")
    return variable.current(model.VariableOption(text="All", value="$__all"))


STARTED: Final = f"openai_realtime_sessions_started_total{{{REAL}}}"
SERVICE: Final = ("service", "Service", f"label_values({STARTED}, service_name)")
ENVIRONMENT: Final = ("environment", "Environment", f"label_values({STARTED}, deployment_environment_name)")
MODEL: Final = ("model", "Model", f"label_values(openai_realtime_sessions_ended_total{{{REAL}}}, gen_ai_request_model)")


def board(uid: str, title: str, description: str, *variables: tuple[str, str, str]) -> dashboard.Dashboard:
    """A dashboard with its variables, and with links to the others."""
    made = dashboard.Dashboard(title).uid(uid).description(description).tags(["realtime-otel"]).readonly()
    made.time("now-1h", "now").refresh("30s").tooltip(model.DashboardCursorSync.CROSSHAIR).timezone("browser")
    others = dashboard.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags(["realtime-otel"])
    made.link(others.as_dropdown(as_dropdown=False).include_vars(include_vars=True).keep_time(keep_time=True))
    for variable in variables:
        made.with_variable(chooser(*variable))
    return made.with_variable(_agent())


def _agent() -> dashboard.QueryVariable:
    """Whose traces are meant: a search is for one service, and panels are for any number of them."""
    variable = chooser("agent", "Traces of", SERVICE[2], "The service whose traces are listed, and that links lead to")
    # The demo's, until metrics say which there are.
    demo = model.VariableOption(text="voice-agent", value="voice-agent")
    return variable.multi(multi=False).include_all(include_all=False).current(demo)


def row(title: str) -> dashboard.Row:
    return dashboard.Row(title)
