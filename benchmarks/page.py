"""Pages of results in Markdown, with plots, in docs/results/."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import timm
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

RESULTS = Path("docs/results")


def write_page(name: str, introduction: str, *sections: str) -> None:
    """Write `NAME.md`: the introduction, the machine, then the sections, with blank lines between."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    page = "\n\n".join(part.strip() for part in (introduction, f"Machine: {machine()}.", *sections) if part)
    (RESULTS / f"{name}.md").write_text(page + "\n")


def machine() -> str:
    """Return processor, cores, versions and date on one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}, onnxruntime {onnxruntime.__version__}; "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )


def table(header: str, rows: Iterable[str]) -> str:
    """Return a Markdown table; ` | ` separates the cells of the header and of each row."""
    rule = " | ".join("---" for _ in header.split(" | "))
    return "\n".join(f"| {row} |" for row in (header, rule, *rows))


def median_range(values: list[float] | NDArray[np.float64], form: str) -> str:
    """Return the median of some values with their 10th and 90th percentiles in parentheses, formatted by `form`."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return f"{median:{form}} ({low:{form}} to {high:{form}})"


def save_plot(figure: Figure, name: str) -> None:
    """Write a figure as `NAME.svg` and close it."""
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": "ofa"}):  # equal plots are equal files
        figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
