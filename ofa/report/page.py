"""Stage `report`: one HTML page with everything it needs inside, to be mailed and opened offline, and a summary."""

import json
import math
import platform
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from ofa.core.files import write_json, write_text
from ofa.cost.latency.table import latency_metrics
from ofa.pipeline.compare import mean_loss
from ofa.pipeline.levels import to_json
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.report import charts
from ofa.report.archs import compact
from ofa.report.content import Content, TargetContent, gather
from ofa.report.markup import definitions, resource, table

_PACKAGES = ("ofa", "torch", "torchvision", "timm", "numpy", "scikit-learn")
_UNTRAINED = "<p>Nothing was trained in this run: its weights were given.</p>"
_DISTILLED = "Losses against a teacher's outputs and losses against the labels are not comparable."


def _report(run: Run, progress: Progress) -> None:
    content = gather(run)
    summary = {
        "space_size": run.family.space.size,
        "predictor": {
            key: content.fit[key]
            for key in ("kendall_tau", "rmse_percent", "regret_percent", "coverage_percent", "n_archs")
        },
        "seconds": content.seconds,
        "targets": {
            target.name: {
                "device": target.device,
                "levels": [to_json(level) for level in target.levels],
                "seconds": target.seconds,
            }
            for target in content.targets
        },
    }
    write_text(run.path("report.html"), page(content))
    write_json(run.path("summary.json"), summary)
    progress(1, 1, "written")


REPORT = Stage("report", ("bundle", "compare"), (), _report)


def page(content: Content) -> str:
    """Return the report as HTML. Everything that comes from recipes, archs and files is escaped."""
    seconds = dict(content.seconds) | {
        target.name: sum(target.seconds.values()) for target in content.targets if target.seconds
    }
    seconds["total"] = sum(seconds.values())
    packages = {"Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    levels = [_level_cells(target, i) for target in content.targets for i in range(len(target.levels))]
    return Template(resource("page.html")).substitute(
        {name: escape(text) for name, text in _texts(content).items()},
        css=resource("page.css"),
        plotly=get_plotlyjs(),
        facts=definitions(content.facts),
        times=table([{"stage or target": name, "time": _duration(value)} for name, value in seconds.items()]),
        levels=table(levels),
        fronts=_chart("fronts", charts.fronts({target.name: target.front for target in content.targets})),
        comparison=_comparison(content),
        targets="".join(map(_target_section, range(len(content.targets)), content.targets)),
        accuracy_agreement=_chart(
            "accuracy_agreement",
            charts.accuracy_agreement(content.fit["measured_percent"], content.fit["predicted_percent"]),
        ),
        training=_chart("training", charts.training(content.epochs)) if content.epochs else _UNTRAINED,
        versions=definitions(packages),
    )


def _comparison(content: Content) -> str:
    """Return the section on networks that run on another target; nothing for a single target."""
    names = [target.name for target in content.targets]
    if len(names) == 1:
        return ""
    rows = []
    for made_for in names:
        cells = {"made for": made_for}
        for name in names:
            loss = mean_loss(content.comparison, made_for, name)
            nothing = "-" if name == made_for else "outside its front"
            cells[f"on {name}"] = nothing if loss is None else f"{loss[0]:.2f} points, {loss[1]:+.0f}% time"
        rows.append(cells)
    measured = [
        {
            "made for": f"{entry['made_for']}, level {entry['level']}",
            "on": entry["target"],
            "precision": entry["precision"],
            "latency ms": f"{_number(entry['latency_ms'])}{'' if entry['measured'] else ' (predicted)'}",
            "predicted": _number(entry["predicted_latency_ms"]),
            "validation": f"{entry['estimated_top1_percent']:.2f}",
        }
        for entry in content.comparison
    ]
    details = f"<details><summary>each level on each other target</summary>{table(measured)}</details>"
    return Template(resource("comparison.html")).substitute(matrix=table(rows), details=details)


def _target_section(number: int, target: TargetContent) -> str:
    """Return the section of one target; `number` keeps the charts' identifiers apart."""
    figures = {
        "accuracy_over_latency": charts.accuracy_over_latency(target.samples, target.front, target.levels),
        "latency_agreement": charts.latency_agreement(target.checks, target.levels),
        "battery": charts.battery(target.replay),
    }
    return Template(resource("target.html")).substitute(
        {name: escape(text) for name, text in _target_texts(target).items()},
        facts=definitions(target.facts),
        device=definitions({name.replace("_", " "): value for name, value in target.device.items()}),
        archs="".join(_arch_details(i, level.arch) for i, level in enumerate(target.levels)),
        finetuning=_finetuning(target),
        **{name: _chart(f"{name}-{number}", figure) for name, figure in figures.items()},
    )


def _finetuning(target: TargetContent) -> str:
    """Return the part on finetuning, empty without any."""
    if not target.finetuned:
        return ""
    rows = []
    for i, (level, entry) in enumerate(zip(target.levels, target.finetuned, strict=True)):
        inherited, finetuned = entry["inherited_percent"], entry["finetuned_percent"]
        percents = {
            "inherited": f"{inherited:.2f}",
            "finetuned": f"{finetuned:.2f}",
            "gain": f"{finetuned - inherited:+.2f}",
        }
        rows.append({"level": str(i), "ms": _number(level.latency_ms)} | percents)
    return Template(resource("finetuning.html")).substitute(table=table(rows))


def _texts(content: Content) -> dict[str, str]:
    """Return the words and numbers inside sentences, not escaped."""
    fit, n_targets = content.fit, len(content.targets)
    return {
        "name": content.name,
        "family": content.facts["family"],
        "data": content.facts["data set"],
        "n_levels": str(sum(len(target.levels) for target in content.targets)),
        "n_targets": f"{n_targets} target" + ("s" if n_targets > 1 else ""),
        "n_archs": str(fit["n_archs"]),
        "kendall_tau": _number(fit["kendall_tau"]),
        "rmse_percent": _number(fit["rmse_percent"]),
        "coverage_percent": f"{fit['coverage_percent']:.0f}",
        "distillation": _DISTILLED if content.distilled else "",
        "recipe": content.recipe,
    }


def _target_texts(target: TargetContent) -> dict[str, str]:
    checks, levels = target.checks, target.levels
    checked = latency_metrics(
        [check["median_ms"] for check in checks], [check["predicted_latency_ms"] for check in checks]
    )
    deployed = latency_metrics([level.latency_ms for level in levels], [level.predicted_latency_ms for level in levels])
    correct = [step.correct for step in target.replay if step.correct is not None]
    n_served = sum(step.n_images for step in target.replay)
    error = f"For the levels, which were measured later, it is {_number(deployed.mean_error_percent)}%."
    return {
        "name": target.name,
        "check_n": str(checked.n),
        "check_error": _number(checked.mean_error_percent),
        "check_within": _number(checked.within_10_percent),
        "check_spearman": _number(checked.spearman),
        "level_error": error if levels[0].measured else "The latencies of the levels are predicted.",
        "images_per_step": str(target.replay[0].n_images),
        "correct": f"{sum(correct)} of {n_served} images were classified correctly." if correct else "",
    }


def _level_cells(target: TargetContent, i: int) -> dict[str, str]:
    level = target.levels[i]
    latency = f"{_number(level.latency_ms)} ({_number(level.latency_spread_ms, 2)})" if level.measured else "predicted"
    return {
        "target": target.name,
        "level": str(i),
        "test top-1 %": f"{level.top1_percent:.2f}",
        "validation": f"{level.validation_top1_percent:.2f}",
        "latency ms": latency,
        "predicted": _number(level.predicted_latency_ms),
        "images/s": _number(level.images_per_second),
        "precision": level.precision,
        "drop": f"{level.accuracy_drop_percent:.2f}",
        "size MiB": _number(level.size_mib),
        "MACs M": _number(level.macs_m),
        "params M": _number(level.params_m),
        "pixels": str(level.arch["resolution"]),
        "file": Path(level.file).name,
        "max diff": f"{level.max_abs_diff:.1e}",
    }


def _arch_details(i: int, arch: Mapping[str, Any]) -> str:
    text = f"{escape(compact(arch))}\n\n{escape(json.dumps(dict(arch)), quote=False)}"
    return f"<details><summary>arch of level {i}</summary><pre>{text}</pre></details>\n"


def _chart(name: str, figure: go.Figure) -> str:
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    html = figure.to_html(config=config, include_plotlyjs=False, full_html=False, div_id=name)
    return f'<div class="chart">{html}</div>'


def _number(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
