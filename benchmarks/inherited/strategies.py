"""Strategies that are compared, as changes of the recipe's section `train`."""

from typing import Any

import ofa
from benchmarks.inherited.tasks import TASKS

SHIPPED = "shipped"
TRAININGS: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "spread on halves": {
        "phases": [{"strategy": "spread", "epochs": 17, "subnets": 4, "parts": 2}],
        "teacher": "average",
        "lr": 0.3,
    },
}
"""Changes by the name of the training."""
ALONE: dict[str, Any] = {"phases": [{"strategy": "full", "epochs": 12}], "clip_grad_norm": None}
"""Changes for networks trained alone."""


def train_config(task: str, changes: dict[str, Any]) -> ofa.TrainConfig:
    """Return the settings of a training."""
    settings = TASKS[task].recipe.train.model_dump(exclude_unset=True) | changes
    return ofa.TrainConfig.model_validate(settings | {"validated_archs": 0, "checkpoint_seconds": 120.0})
