"""Evaluation of networks: BatchNorm calibration and metrics. `ofa.evaluate(...)` is `metrics.evaluate`."""

from ofa.core.packages import make_callable

make_callable(__name__, "metrics", "evaluate")
