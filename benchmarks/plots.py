"""Plots of the pages of results."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

plt.rcParams["svg.hashsalt"] = "ofa"  # equal plots are equal files


def save(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG file and close it."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
