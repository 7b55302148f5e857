"""The report's charts, as plotly figures of plain data. Colors are readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from ofa.report.archs import arch_lines
from ofa.report.content import Entry

BLUE, ORANGE, GRAY, CLEAR = "#3b82f6", "#c2570c", "#8b8b8b", "rgba(0,0,0,0)"


def accuracy_over_latency(samples: list[Entry], front: list[Entry], levels: list[Entry]) -> go.Figure:
    """Sampled subnets and the front (validation, predicted latency), and levels (test, measured latency)."""
    figure = go.Figure()
    dots, line = {"mode": "markers", "marker": _marker(GRAY, 5)}, {"mode": "lines+markers", "marker": _marker(BLUE, 7)}
    for name, key, entries, style in (
        ("sampled subnets: validation, predicted", "top1_percent", samples, dots),
        ("front: validation, predicted", "estimated_top1_percent", front, line),
    ):
        latencies, accuracies = _column(entries, "predicted_latency_ms"), _column(entries, key)
        said = [
            f"validation {entry['top1_percent']:.2f}%, predicted {latency:.3g} ms"
            for latency, entry in zip(latencies, entries, strict=True)
        ]
        figure.add_scatter(x=latencies, y=accuracies, name=name, **_hover(said, entries), **style)
    _add_levels(figure, levels, "top1_percent", "levels, numbered: test, measured")
    latencies = [x for trace in figure.data for x in trace.x]
    figure.update_xaxes(_latency_axis("latency, ms", latencies))
    figure.update_yaxes(title="top-1 accuracy, %")
    return _styled(figure, 520)


def latency_agreement(checks: list[Entry], levels: list[Entry]) -> go.Figure:
    """Predicted over measured latency, of the table's whole networks and of the levels."""
    measured, predicted = _column(checks, "median_ms"), _column(checks, "predicted_latency_ms")
    said = [f"measured {x:.3g} ms, predicted {y:.3g} ms" for x, y in zip(measured, predicted, strict=True)]
    style = {"mode": "markers", "marker": _marker(BLUE, 8)}
    figure = go.Figure()
    figure.add_scatter(x=measured, y=predicted, name="whole networks", **_hover(said, checks), **style)
    _add_levels(figure, levels, "predicted_latency_ms", "levels, numbered")
    every = [value for trace in figure.data for value in (*trace.x, *trace.y)]
    low, high = min(every) / 1.1, max(every) * 1.1
    _add_diagonal(figure, low, high)
    figure.update_xaxes(_latency_axis("measured latency, ms", [low, high]))
    figure.update_yaxes(_latency_axis("predicted latency, ms", [low, high]))
    return _styled(figure, 480)


def accuracy_agreement(measured_percent: list[float], predicted_percent: list[float]) -> go.Figure:
    """Predicted over measured validation accuracy, of archs kept from the predictor."""
    figure = go.Figure()
    said = [f"measured {x:.2f}%, predicted {y:.2f}%" for x, y in zip(measured_percent, predicted_percent, strict=True)]
    style = {"mode": "markers", "marker": _marker(BLUE, 8)}
    figure.add_scatter(x=measured_percent, y=predicted_percent, name="held-out archs", **_hover(said), **style)
    every = [*measured_percent, *predicted_percent]
    margin = 0.05 * (max(every) - min(every)) or 1.0
    low, high = min(every) - margin, max(every) + margin
    _add_diagonal(figure, low, high)
    figure.update_xaxes(title="measured validation accuracy, %", range=[low, high])
    figure.update_yaxes(title="predicted accuracy, %", range=[low, high])
    return _styled(figure, 480)


def training(epochs: list[Entry]) -> go.Figure:
    """Loss and validation accuracy of the largest, the smallest and other networks by epoch, phases shaded."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    numbers = _column(epochs, "epoch")
    for name, color in {"largest": BLUE, "smallest": ORANGE, "others": GRAY}.items():
        style = {"name": name, "legendgroup": name, "line_color": color, "mode": "lines+markers", "marker_size": 5}
        figure.add_scatter(x=numbers, y=[epoch["loss"].get(name) for epoch in epochs], **style, row=1, col=1)
        if name != "others":
            accuracies = _column(epochs, f"{name}_top1_percent")
            figure.add_scatter(x=numbers, y=accuracies, **style, showlegend=False, row=2, col=1)
    _shade(figure, [(numbers[a] - 0.5, numbers[b] + 0.5, s) for a, b, s in _stretches(_column(epochs, "strategy"))], 2)
    figure.update_yaxes(title="loss", row=1)
    figure.update_yaxes(title="validation top-1, %", row=2)
    figure.update_xaxes(range=[numbers[0] - 0.5, numbers[-1] + 0.5], tick0=0, dtick=-(-len(numbers) // 10))
    figure.update_xaxes(title="epoch", row=2)
    return _styled(figure, 580, legend_y=1.1, hovermode="x unified")


def battery(steps: list[Entry]) -> go.Figure:
    """Charge, level, and the level's accuracy and latency over the steps of a replay; the charging shaded."""
    rows = {
        "battery, %": ("battery_percent", GRAY),
        "level": ("level", ORANGE),
        "test top-1, %": ("top1_percent", BLUE),
        "latency, ms": ("latency_ms", BLUE),
    }
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.04)
    numbers = list(range(len(steps)))
    for row, (title, (key, color)) in enumerate(rows.items(), start=1):
        shape = {"shape": "hvh", "color": color} if key in ("level", "top1_percent") else {"color": color}
        style = {"mode": "lines+markers", "marker_size": 5, "line": shape, "showlegend": False}
        figure.add_scatter(x=numbers, y=_column(steps, key), name=title, **style, row=row, col=1)
        figure.update_yaxes(title=title, row=row)
    stretches = [(a - 0.5, b + 0.5, "charging") for a, b, on in _stretches(_column(steps, "charging")) if on]
    _shade(figure, stretches, len(rows))
    figure.update_yaxes(dtick=1, autorange="reversed", row=2)
    figure.update_xaxes(range=[-0.5, len(steps) - 0.5])
    figure.update_xaxes(title="step", row=len(rows))
    return _styled(figure, 680, hovermode="x unified")


def _add_levels(figure: go.Figure, levels: list[Entry], y_key: str, name: str) -> None:
    said = [
        f"<b>level {i}</b>: test {level['top1_percent']:.2f}%<br>"
        f"measured {level['latency_ms']:.3g} ms, predicted {level['predicted_latency_ms']:.3g} ms"
        for i, level in enumerate(levels)
    ]
    figure.add_scatter(
        x=_column(levels, "latency_ms"),
        y=_column(levels, y_key),
        name=name,
        mode="markers+text",
        marker=_marker(ORANGE, 20),
        text=[str(i) for i in range(len(levels))],
        textfont={"color": "white"},
        cliponaxis=False,
        **_hover(said, levels),
    )


def _add_diagonal(figure: go.Figure, low: float, high: float) -> None:
    style = {"mode": "lines", "line": {"color": GRAY, "width": 1, "dash": "dash"}}
    figure.add_scatter(x=[low, high], y=[low, high], name="equal", hoverinfo="skip", **style)
    figure.data = (figure.data[-1], *figure.data[:-1])


def _shade(figure: go.Figure, stretches: list[tuple[float, float, str]], rows: int) -> None:
    """Shades and labels stretches of the x axis; labels take turns in height, as stretches may be short."""
    for i, (first, last, label) in enumerate(stretches):
        color = f"rgba(128,128,128,{(0.16, 0.07)[i % 2]})"
        for row in range(1, rows + 1):
            figure.add_vrect(x0=first, x1=last, fillcolor=color, line_width=0, layer="below", row=row, col=1)
        place = {"x": first, "xref": "x", "y": 1, "yref": "y domain", "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(text=escape(label), showarrow=False, yshift=14 * (i % 2), **place)


def _stretches(values: Sequence[Any]) -> list[tuple[int, int, Any]]:
    """First and last position of each run of equal values, with the value."""
    runs = [(value, [i for i, _ in items]) for value, items in groupby(enumerate(values), key=lambda item: item[1])]
    return [(positions[0], positions[-1], value) for value, positions in runs]


def _latency_axis(title: str, values: list[float]) -> dict[str, Any]:
    """Logarithmic, with ticks at round numbers, if the values span more than a factor of five."""
    low, high = min(values), max(values)
    if high <= 5 * low:
        return {"title": title}
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = ("1", "1.5", "2", "3", "5", "7") if high <= 20 * low else ("1", "2", "5")
    ticks = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
    return {"title": title, "type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _marker(color: str, size: int) -> dict[str, Any]:
    return {"color": color, "size": size}


def _hover(said: list[str], entries: list[Entry] | None = None) -> dict[str, Any]:
    archs = [""] * len(said) if entries is None else ["<br>" + _arch_html(entry) for entry in entries]
    return {"hoverinfo": "text", "hovertext": [text + arch for text, arch in zip(said, archs, strict=True)]}


def _arch_html(entry: Entry) -> str:
    return "<br>".join(escape(line) for line in arch_lines(entry["arch"]))


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
