"""Stage `report`: one HTML page with everything it needs inside, to be mailed and opened offline, and a summary."""

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from ofa.core.files import write_json, write_text
from ofa.cost.latency.table import latency_metrics
from ofa.pipeline.levels import Level, to_json
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.report import charts
from ofa.report.archs import compact
from ofa.report.content import Content, gather

_PACKAGES = ("ofa", "torch", "torchvision", "timm", "numpy", "scikit-learn")
_UNTRAINED = "<p>Nothing was trained in this run: its weights were given.</p>"
_DISTILLED = "Losses against a teacher's outputs and losses against the labels are not comparable."


def _report(run: Run, progress: Progress) -> None:
    content = gather(run)
    summary = {
        "space_size": run.family.space.size,
        "levels": [to_json(level) for level in content.levels],
        "predictor": {key: content.fit[key] for key in ("kendall_tau", "rmse_percent", "n_fit", "n_test")},
        "seconds": content.seconds,
    }
    write_text(run.path("report.html"), page(content))
    write_json(run.path("summary.json"), summary)
    progress(1, 1, "written")


REPORT = Stage("report", ("bundle",), (), _report)


def page(content: Content) -> str:
    """Return the report as HTML. Everything that comes from recipes, archs and files is escaped."""
    figures = {
        "accuracy_over_latency": charts.accuracy_over_latency(content.samples, content.front, content.levels),
        "latency_agreement": charts.latency_agreement(content.checks, content.levels),
        "accuracy_agreement": charts.accuracy_agreement(
            content.fit["measured_percent"], content.fit["predicted_percent"]
        ),
        "battery": charts.battery(content.replay),
    }
    seconds = {**content.seconds, "total": sum(content.seconds.values())}
    packages = {"Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return Template(_resource("page.html")).substitute(
        {name: escape(text) for name, text in _texts(content).items()},
        css=_resource("page.css"),
        plotly=get_plotlyjs(),
        facts=_definitions(content.facts),
        device=_definitions({name.replace("_", " "): value for name, value in content.device.items()}),
        times=_table([{"stage": name, "time": _duration(value)} for name, value in seconds.items()]),
        levels=_table([_level_cells(i, level) for i, level in enumerate(content.levels)]),
        archs="".join(_arch_details(i, level.arch) for i, level in enumerate(content.levels)),
        versions=_definitions(packages),
        **{name: _chart(name, figure) for name, figure in figures.items()},
        training=_chart("training", charts.training(content.epochs)) if content.epochs else _UNTRAINED,
    )


def _texts(content: Content) -> dict[str, str]:
    """Return the words and numbers inside sentences, not escaped."""
    checks, levels, fit = content.checks, content.levels, content.fit
    checked = latency_metrics(
        [check["median_ms"] for check in checks], [check["predicted_latency_ms"] for check in checks]
    )
    deployed = latency_metrics([level.latency_ms for level in levels], [level.predicted_latency_ms for level in levels])
    correct = [step.correct for step in content.replay if step.correct is not None]
    n_served = sum(step.n_images for step in content.replay)
    return {
        "name": content.name,
        "family": content.facts["family"],
        "data": content.facts["data set"],
        "n_levels": str(len(levels)),
        "check_n": str(checked.n),
        "check_error": _number(checked.mean_error_percent),
        "check_within": _number(checked.within_10_percent),
        "check_spearman": _number(checked.spearman),
        "level_error": _number(deployed.mean_error_percent),
        "n_fit": str(fit["n_fit"]),
        "n_test": str(fit["n_test"]),
        "kendall_tau": _number(fit["kendall_tau"]),
        "rmse_percent": _number(fit["rmse_percent"]),
        "distillation": _DISTILLED if content.distilled else "",
        "images_per_step": str(content.replay[0].n_images),
        "correct": f"{sum(correct)} of {n_served} images were classified correctly." if correct else "",
        "recipe": content.recipe,
    }


def _level_cells(i: int, level: Level) -> dict[str, str]:
    return {
        "level": str(i),
        "test top-1 %": f"{level.top1_percent:.2f}",
        "validation": f"{level.validation_top1_percent:.2f}",
        "latency ms": f"{_number(level.latency_ms)} ({_number(level.latency_spread_ms, 2)})",
        "predicted": _number(level.predicted_latency_ms),
        "MACs M": _number(level.macs_m),
        "params M": _number(level.params_m),
        "pixels": str(level.arch["resolution"]),
        "ONNX file": Path(level.file).name,
        "max diff": f"{level.max_abs_diff:.1e}",
    }


def _arch_details(i: int, arch: Mapping[str, Any]) -> str:
    text = f"{escape(compact(arch))}\n\n{escape(json.dumps(dict(arch)), quote=False)}"
    return f"<details><summary>arch of level {i}</summary><pre>{text}</pre></details>\n"


def _chart(name: str, figure: go.Figure) -> str:
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    html = figure.to_html(config=config, include_plotlyjs=False, full_html=False, div_id=name)
    return f'<div class="chart">{html}</div>'


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table of rows by column, at least one."""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    body = "".join(row(cells.values(), "td") for cells in rows)
    return f'<div class="scroll"><table>\n{row(rows[0], "th")}{body}</table></div>'


def _definitions(pairs: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>\n" for name, value in pairs.items())
    return f"<dl>\n{items}</dl>"


def _number(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _resource(name: str) -> str:
    return files("ofa.report").joinpath(name).read_text(encoding="utf-8")
