"""Strategies that are compared, as changes of the recipe's section `train`."""

from typing import Any

import ofa
from benchmarks.inherited.tasks import TASKS

SHIPPED = "shipped"
Changes = dict[str, Any]


def _spread(teacher: str, epochs: int, lr: float = 0.3) -> Changes:
    phase = {"strategy": "spread", "epochs": epochs, "subnets": 4, "parts": 2}
    return {"phases": [phase], "teacher": teacher, "lr": lr}


TRAININGS: dict[str, dict[str, Changes]] = {
    SHIPPED: {task: {} for task in TASKS},
    "spread on halves, average": {"cnn": _spread("average", 17)},
    "spread on halves, labels": {"cnn": _spread("none", 24), "hybrid": _spread("none", 20)},
    "spread on halves, labels, lr 0.6": {"cnn": _spread("none", 24, lr=0.6)},
}
"""Changes by the name of the training and the task; as many epochs as cost what the recipe's training costs."""
ALONE: Changes = {"phases": [{"strategy": "full", "epochs": 12}], "clip_grad_norm": None}
"""Changes for networks trained alone."""


def train_config(task: str, changes: Changes) -> ofa.TrainConfig:
    """Return the settings of a training."""
    settings = TASKS[task].recipe.train.model_dump(exclude_unset=True) | changes
    return ofa.TrainConfig.model_validate(settings | {"validated_archs": 0, "checkpoint_seconds": 120.0})
