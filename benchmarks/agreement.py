"""How two sets of accuracies over seeds and archs agree, in words."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

Floats = NDArray[np.float64]


def agreement(inherited: Floats, alone: Floats) -> str:
    """Summarize gaps and rank correlations of two sets of accuracies, each `[seeds, archs]`."""
    gaps = inherited - alone
    mean_gaps, tau_of_means = gaps.mean(0), kendalltau(inherited.mean(0), alone.mean(0)).statistic
    lines = [
        f"- Mean gap (inherited minus alone): {mean_std(gaps.mean(1), '+.2f')} points.",
        f"- Worst arch: {mean_gaps.min():+.2f} points; {(mean_gaps >= -0.3).sum()} of {len(mean_gaps)} archs lose at "
        "most 0.3 (means over seeds).",
        f"- Kendall tau between inherited and alone: {mean_tau(zip(inherited, alone, strict=True))}; between their "
        f"means over seeds: {tau_of_means:.3f}.",
    ]
    if len(alone) > 1:
        lines.append(
            f"- For comparison, Kendall tau between two seeds of training alone: {mean_tau(combinations(alone, 2))}."
        )
    return "\n".join(lines)


def mean_tau(pairs: Iterable[tuple[Floats, Floats]]) -> str:
    """Return the mean rank correlation of pairs of accuracies, and its standard deviation."""
    return mean_std(np.array([kendalltau(*pair).statistic for pair in pairs]), ".3f")


def std(values: Floats) -> Any:
    """Return the sample standard deviation over seeds, the first axis; 0 for a single seed."""
    return values.std(0, ddof=min(1, len(values) - 1))


def mean_std(values: Floats, form: str = ".2f") -> str:
    """Return the mean over seeds `[seeds]`, and the standard deviation if there are several."""
    return f"{values.mean():{form}}" + (f" ± {std(values):{form.lstrip('+')}}" if len(values) > 1 else "")
