"""Strategies that are compared, as changes of the recipe's section `train`."""

from typing import Any

import ofa
from benchmarks.inherited.tasks import TASKS

SANDWICH, SPREAD, QUARTERS = "sandwich", "spread", "spread, quarters"
MUON = f"{QUARTERS}, muon"
RECIPES = {"cnn": MUON, "hybrid": MUON}
"""The training that the recipe of each task does."""
Changes = dict[str, Any]
_SGD: Changes = {"optimizer": "sgd", "weight_decay": 3e-5}


def _spread(epochs: int, lr: float, teacher: str = "none", parts: int = 2) -> Changes:
    phase = {"strategy": "spread", "epochs": epochs, "subnets": 4, "parts": parts}
    return _SGD | {"phases": [phase], "teacher": teacher, "lr": lr, "batch_size": 128}


def _quarters(epochs: int) -> Changes:
    return _spread(epochs, 0.6, parts=4) | {"batch_size": 256}


def _muon(epochs: int) -> Changes:
    return _quarters(epochs) | {"optimizer": "muon", "lr": 0.02, "weight_decay": 0.1}


_SANDWICH: Changes = _SGD | {
    "phases": [{"strategy": "sandwich", "epochs": 12, "random": 2}],
    "teacher": "largest",
    "lr": 0.15,
    "batch_size": 128,
}
TRAININGS: dict[str, dict[str, Changes]] = {
    SANDWICH: {"cnn": _SANDWICH, "hybrid": _SANDWICH},
    SPREAD: {"cnn": _spread(24, 0.6), "hybrid": _spread(20, 0.6)},
    "spread, lr 0.3": {"cnn": _spread(24, 0.3)},
    QUARTERS: {"cnn": _quarters(44)},
    MUON: {"cnn": _muon(38), "hybrid": _muon(40)},
    f"{MUON}, twice as long": {"cnn": _muon(76)},
    f"{MUON}, four times as long": {"cnn": _muon(152)},
    "spread, average as teacher": {"cnn": _spread(17, 0.6, "average")},
    "spread, twice as long": {"hybrid": _spread(40, 0.6)},
}
"""Changes by the name of the training and the task. Where the name says no other, a training has as many epochs as
cost what the sandwich costs, the training of the first recipes. In `quarters`, each arch of a step has images of its
own, 64 of 256; else two archs share the same 64 of 128. `muon` is the optimizer, else SGD."""
ALONE: Changes = _SGD | {
    "phases": [{"strategy": "full", "epochs": 12}],
    "clip_grad_norm": None,
    "batch_size": 128,
}
"""Changes for networks trained alone: as many epochs as the sandwich."""


def train_config(task: str, changes: Changes) -> ofa.TrainConfig:
    """Return the settings of a training."""
    settings = TASKS[task].recipe.train.model_dump(exclude_unset=True) | changes
    return ofa.TrainConfig.model_validate(settings | {"validated_archs": 0, "checkpoint_seconds": 120.0})
