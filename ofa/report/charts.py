"""The report's charts, as plotly figures of plain data. Colors are readable on light and on dark pages."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ofa.pipeline.levels import Level, ReplayStep
from ofa.report.archs import arch_lines
from ofa.report.content import Entry

COLORS = ("#3b82f6", "#c2570c", "#16a34a", "#a855f7", "#e11d48", "#0891b2", "#8b8b8b")
BLUE, ORANGE, GRAY, CLEAR = "#3b82f6", "#c2570c", "#8b8b8b", "rgba(0,0,0,0)"


def fronts(by_target: Mapping[str, list[Entry]]) -> go.Figure:
    """Show the fronts of targets by name: validation accuracy over predicted latency."""
    figure = go.Figure()
    for i, (name, front) in enumerate(by_target.items()):
        texts = [
            f"{escape(name)}, {escape(entry['precision'])}: {entry['estimated_top1_percent']:.2f}%, "
            f"{entry['predicted_latency_ms']:.3g} ms<br>{_arch_html(entry['arch'])}"
            for entry in front
        ]
        x, y = _column(front, "predicted_latency_ms"), _column(front, "estimated_top1_percent")
        _add_points(figure, escape(name), x, y, texts, color=_color(i), size=6, mode="lines+markers")
    figure.update_xaxes(_latency_axis("predicted latency of a run, ms", [x for trace in figure.data for x in trace.x]))
    figure.update_yaxes(title="validation top-1, %")
    return _styled(figure, 460)


def measured(by_stage: Mapping[str, list[Entry]]) -> go.Figure:
    """Show the accuracies that were measured so far over multiply-accumulates, by what they were measured for."""
    figure = go.Figure()
    for i, (name, entries) in enumerate(by_stage.items()):
        texts = [
            f"{entry['top1_percent']:.2f}%, {entry['macs_m']:.3g} million MACs<br>{_arch_html(entry['arch'])}"
            for entry in entries
        ]
        x, y = _column(entries, "macs_m"), _column(entries, "top1_percent")
        _add_points(figure, escape(name), x, y, texts, color=_color(i), size=5)
    figure.update_xaxes(title="multiply-accumulates, millions")
    figure.update_yaxes(title="validation top-1, %")
    return _styled(figure, 420)


def accuracy_over_latency(samples: list[Entry], front: list[Entry], levels: list[Level]) -> go.Figure:
    """Show sampled subnets and the front (validation, predicted latency), and levels (test, measured latency)."""
    figure = go.Figure()
    for name, key, entries, style in (
        ("sampled subnets: validation, predicted", "top1_percent", samples, {"color": GRAY, "size": 5}),
        ("front: validation, predicted", "estimated_top1_percent", front, {"size": 7, "mode": "lines+markers"}),
    ):
        texts = [
            f"validation {entry['top1_percent']:.2f}%, predicted {entry['predicted_latency_ms']:.3g} ms"
            f"<br>{_arch_html(entry['arch'])}"
            for entry in entries
        ]
        _add_points(figure, name, _column(entries, "predicted_latency_ms"), _column(entries, key), texts, **style)
    _add_levels(figure, "levels, numbered: test, measured", levels, [level.top1_percent for level in levels])
    figure.update_xaxes(_latency_axis("latency, ms", [x for trace in figure.data for x in trace.x]))
    figure.update_yaxes(title="top-1 accuracy, %")
    return _styled(figure, 520)


def latency_agreement(checks: list[Entry], levels: list[Level]) -> go.Figure:
    """Show predicted over measured latency, of the table's whole networks and of the levels."""
    measured_ms, predicted_ms = _column(checks, "median_ms"), _column(checks, "predicted_latency_ms")
    texts = [
        f"measured {x:.3g} ms, predicted {y:.3g} ms<br>{_arch_html(check['arch'])}"
        for x, y, check in zip(measured_ms, predicted_ms, checks, strict=True)
    ]
    figure = go.Figure()
    _add_points(figure, "whole networks", measured_ms, predicted_ms, texts)
    _add_levels(figure, "levels, numbered", levels, [level.predicted_latency_ms for level in levels])
    values = [value for trace in figure.data for value in (*trace.x, *trace.y)]
    low, high = min(values) / 1.1, max(values) * 1.1
    figure.update_xaxes(_latency_axis("measured latency, ms", [low, high]))
    figure.update_yaxes(_latency_axis("predicted latency, ms", [low, high]))
    return _styled(_with_diagonal(figure, low, high), 480)


def accuracy_agreement(measured_percent: list[float], predicted_percent: list[float]) -> go.Figure:
    """Show predicted over measured validation accuracy, of archs that the predictor had not seen."""
    texts = [f"measured {x:.2f}%, predicted {y:.2f}%" for x, y in zip(measured_percent, predicted_percent, strict=True)]
    figure = go.Figure()
    _add_points(figure, "archs left out", measured_percent, predicted_percent, texts)
    values = [*measured_percent, *predicted_percent]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    low, high = min(values) - margin, max(values) + margin
    figure.update_xaxes(title="measured validation accuracy, %", range=[low, high])
    figure.update_yaxes(title="predicted accuracy, %", range=[low, high])
    return _styled(_with_diagonal(figure, low, high), 480)


def training(epochs: list[Entry]) -> go.Figure:
    """Show loss and validation accuracy by epoch, of the largest, the smallest and other networks; phases shaded."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    numbers = _column(epochs, "epoch")
    for name, color in {"largest": BLUE, "smallest": ORANGE, "others": GRAY}.items():
        style = {"name": name, "legendgroup": name, "line_color": color, "mode": "lines+markers", "marker_size": 5}
        figure.add_scatter(x=numbers, y=[epoch["loss"].get(name) for epoch in epochs], **style, row=1, col=1)
        if name != "others":
            top1_percent = _column(epochs, f"{name}_top1_percent")
            figure.add_scatter(x=numbers, y=top1_percent, **style, showlegend=False, row=2, col=1)
    _shade(figure, [(numbers[a] - 0.5, numbers[b] + 0.5, s) for a, b, s in _stretches(_column(epochs, "strategy"))], 2)
    figure.update_yaxes(title="loss", row=1)
    figure.update_yaxes(title="validation top-1, %", row=2)
    figure.update_xaxes(range=[numbers[0] - 0.5, numbers[-1] + 0.5], tick0=0, dtick=-(-len(numbers) // 10))
    figure.update_xaxes(title="epoch", row=2)
    return _styled(figure, 580, legend_y=1.1, hovermode="x unified")


def battery(steps: list[ReplayStep]) -> go.Figure:
    """Show charge, level, and the level's accuracy and latency over the steps of a replay; charging shaded."""
    rows = {
        "battery, %": ("battery_percent", GRAY),
        "level": ("level", ORANGE),
        "test top-1, %": ("top1_percent", BLUE),
        "latency, ms": ("latency_ms", BLUE),
    }
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.04)
    numbers = list(range(len(steps)))
    for row, (title, (key, color)) in enumerate(rows.items(), start=1):
        line = {"shape": "hvh" if key in ("level", "top1_percent") else "linear", "color": color}
        style = {"mode": "lines+markers", "marker_size": 5, "line": line, "showlegend": False}
        figure.add_scatter(x=numbers, y=[getattr(step, key) for step in steps], name=title, **style, row=row, col=1)
        figure.update_yaxes(title=title, row=row)
    stretches = [(a - 0.5, b + 0.5, "charging") for a, b, on in _stretches([step.charging for step in steps]) if on]
    _shade(figure, stretches, len(rows))
    figure.update_yaxes(dtick=1, autorange="reversed", row=2)
    figure.update_xaxes(range=[-0.5, len(steps) - 0.5])
    figure.update_xaxes(title="step", row=len(rows))
    return _styled(figure, 680, hovermode="x unified")


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _add_points(figure: go.Figure, name: str, x: list[float], y: list[float], texts: list[str], **style: Any) -> None:
    marker = {"color": style.pop("color", BLUE), "size": style.pop("size", 8)}
    style = {"mode": "markers", "marker": marker, "hoverinfo": "text", "hovertext": texts} | style
    figure.add_scatter(x=x, y=y, name=name, **style)


def _add_levels(figure: go.Figure, name: str, levels: list[Level], y: list[float]) -> None:
    texts = [
        f"<b>level {i}</b>: test {level.top1_percent:.2f}%<br>measured {level.latency_ms:.3g} ms, "
        f"predicted {level.predicted_latency_ms:.3g} ms<br>{_arch_html(level.arch)}"
        for i, level in enumerate(levels)
    ]
    numbers = [str(i) for i in range(len(levels))]
    style = {"mode": "markers+text", "text": numbers, "textfont": {"color": "white"}, "cliponaxis": False}
    _add_points(figure, name, [level.latency_ms for level in levels], y, texts, color=ORANGE, size=20, **style)


def _with_diagonal(figure: go.Figure, low: float, high: float) -> go.Figure:
    line = {"color": GRAY, "width": 1, "dash": "dash"}
    figure.add_scatter(x=[low, high], y=[low, high], name="equal", hoverinfo="skip", mode="lines", line=line)
    figure.data = (figure.data[-1], *figure.data[:-1])
    return figure


def _shade(figure: go.Figure, stretches: list[tuple[float, float, str]], rows: int) -> None:
    """Shade and label stretches of the x axis; a label after a short stretch is raised above the one before."""
    width = stretches[-1][1] - stretches[0][0] if stretches else 0.0
    raised = False
    for i, (first, last, label) in enumerate(stretches):
        raised = i > 0 and not raised and stretches[i - 1][1] - stretches[i - 1][0] < width / 8
        color = f"rgba(128,128,128,{(0.16, 0.07)[i % 2]})"
        for row in range(1, rows + 1):
            figure.add_vrect(x0=first, x1=last, fillcolor=color, line_width=0, layer="below", row=row, col=1)
        place = {"x": first, "xref": "x", "y": 1, "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(text=escape(label), showarrow=False, yshift=14 * raised, **place)


def _stretches(values: Sequence[Any]) -> list[tuple[int, int, Any]]:
    """Return first and last position of each run of equal values, with the value."""
    runs = [(value, [i for i, _ in items]) for value, items in groupby(enumerate(values), key=lambda item: item[1])]
    return [(positions[0], positions[-1], value) for value, positions in runs]


def _latency_axis(title: str, values: list[float]) -> dict[str, Any]:
    """Return an axis that is logarithmic, with ticks at round numbers, if values span more than a factor of five."""
    low, high = min(values), max(values)
    if high <= 5 * low:
        return {"title": title}
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = ("1", "1.5", "2", "3", "5", "7") if high <= 20 * low else ("1", "2", "5")
    ticks = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
    return {"title": title, "type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _arch_html(arch: Mapping[str, int | float]) -> str:
    return "<br>".join(escape(line) for line in arch_lines(arch))


def _column(entries: list[Entry], key: str) -> list[Any]:
    return [entry[key] for entry in entries]


def _styled(figure: go.Figure, height: int, legend_y: float = 1.02, **layout: Any) -> go.Figure:
    line = {"gridcolor": "rgba(128,128,128,0.25)", "linecolor": GRAY, "showline": True, "zeroline": False}
    figure.update_xaxes(line | {"automargin": True, "title_standoff": 8})
    figure.update_yaxes(line | {"automargin": True, "title_standoff": 8, "hoverformat": ".4~g"})
    return figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 16, "t": 36, "b": 8},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": GRAY},
        legend={"orientation": "h", "x": 0, "y": legend_y, "xanchor": "left", "yanchor": "bottom"},
        hoverlabel={"bgcolor": "#333", "bordercolor": "#333", "align": "left"},
        **layout,
    )
