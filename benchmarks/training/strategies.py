"""Strategies of the comparison, with settings that make them comparable."""

from typing import Any, NamedTuple

import ofa
from benchmarks.training.results import phase_key

BATCH = 64
LR = {"full": 0.2, "uniform": 0.2, "fair": 0.1, "sandwich": 0.15, "pareto": 0.15}
"""Peak learning rates by strategy of the last phase, chosen on another seed; the losses of a step's archs are summed.

For networks trained alone, other rates than 0.2 changed the test top-1 by, in points (CNN, one seed): 0.1: +0.3 and
-0.3 (archs 7, 15); 0.4: -0.1 and -1.0 (the same archs); 0.05: +0.2 (arch 19). On 1,000 validation images: +1.4 and
-0.2; -1.2 and -0.5; -0.5.
"""
CLIP_GRAD_NORM = 5.0
"""For supernets, whose gradient is the sum over a step's archs. That of a network alone stays below it."""
COMMON: dict[str, Any] = {
    "batch_size": BATCH,
    "ema_decay": 0.99,
    "calibration_images": 512,
    "checkpoint_seconds": 1e9,
    "validated_archs": 0,
    "warmup_epochs": 0.5,
}
"""Settings of all trainings, also of networks alone."""

_FULL = {"strategy": "full", "epochs": 1}
_UNIFORM = {"strategy": "uniform", "epochs": 1}
_SANDWICH = {"strategy": "sandwich", "epochs": 1, "random": 2}
_PARETO = {"strategy": "pareto", "epochs": 1, "random": 2}
_TEACHER_ONLY = {"labels_weight": 0.0}
_KERNEL = {"resolution": "all", "*.kernel": "all"}


def _stage(epochs: int, lr: float, **settings: Any) -> dict[str, Any]:
    """Return a stage of progressive shrinking; its learning rate is relative to that of the largest network."""
    return _UNIFORM | {"epochs": epochs, "lr": LR["full"] * lr} | settings


STRATEGIES: dict[str, dict[str, Any]] = {
    "single path, labels": {"phases": [_UNIFORM], "teacher": "none"},
    "strictly fair, labels": {"phases": [{"strategy": "fair", "epochs": 1}], "teacher": "none"},
    "progressive shrinking": {  # once-for-all (arXiv 1908.09791, appendix B)
        "phases": [
            _stage(180, 1.0, strategy="full"),
            _stage(125, 0.37, elastic=_KERNEL),
            _stage(25, 0.03, subnets=2, elastic=_KERNEL | {"*.depth": 2}),
            _stage(125, 0.09, subnets=2, elastic=_KERNEL | {"*.depth": "all"}),
            _stage(25, 0.03, subnets=4, sort_channels=True, elastic=_KERNEL | {"*.depth": "all", "*.expand": 2}),
            _stage(125, 0.09, subnets=4, sort_channels=True),
        ],
        "teacher": "full",
    },
    "sandwich, labels": {"phases": [_SANDWICH], "teacher": "none"},
    "sandwich": {"phases": [_SANDWICH], "distill": _TEACHER_ONLY},
    "sandwich, teacher and labels": {"phases": [_SANDWICH]},
    "sandwich of 10, teacher and labels": {"phases": [_SANDWICH | {"random": 8}], "warmup_epochs": 2},
    "full, then sandwich": {"phases": [_FULL | {"epochs": 2}, _SANDWICH | {"epochs": 11}], "distill": _TEACHER_ONLY},
    "sandwich, alpha divergence": {"phases": [_SANDWICH], "distill": _TEACHER_ONLY | {"loss": "alpha"}},
    "best-up": {"phases": [_PARETO | {"attend": "best"}], "distill": _TEACHER_ONLY},
    "worst-up": {"phases": [_PARETO | {"attend": "worst"}], "distill": _TEACHER_ONLY},
    "delayed shrinking": {"phases": [_FULL, _SANDWICH | {"ramp_epochs": 2.0}], "distill": _TEACHER_ONLY},
}
"""Settings that differ from the common ones, by name. The epochs of phases are relative to each other."""
REFERENCE = "progressive shrinking"
LARGE = "sandwich of 10, teacher and labels"
RECIPES = "sandwich, teacher and labels"
"""The strategy of this project's recipes."""
COMPARED_WITH_ALONE = f"{LARGE} as long as alone"
"""Name of the supernets whose subnets are compared with networks trained alone."""


class Training(NamedTuple):
    """A training; `cost_share` is its cost relative to those supernets."""

    strategy: str
    cost_share: float = 1 / 4
    processes: int = 1
    different_archs: bool = False


TRAININGS = {name: Training(name) for name in STRATEGIES} | {
    f"{RECIPES} at half the cost": Training(RECIPES, 1 / 8),
    f"{LARGE} at half the cost": Training(LARGE, 1 / 8),
    f"{LARGE} by two processes, same archs": Training(LARGE, processes=2),
    f"{LARGE} by two processes, different archs": Training(LARGE, processes=2, different_archs=True),
}
"""Trainings of the comparison of strategies, by name."""


def train_config(strategy: str, epochs: list[int], different_archs: bool = False) -> ofa.TrainConfig:
    """Return the settings of a training, given the epochs of each phase."""
    own = STRATEGIES[strategy]
    phases = [phase | {"epochs": n} for phase, n in zip(own["phases"], epochs, strict=True)]
    settings = {"lr": LR[phases[-1]["strategy"]], "clip_grad_norm": CLIP_GRAD_NORM, "different_archs": different_archs}
    return ofa.TrainConfig.model_validate(COMMON | settings | own | {"phases": phases})


def epochs_for(strategy: str, budget_seconds: float, epoch_seconds: dict[str, float]) -> list[int]:
    """Return the epochs of each phase that together cost a budget, given the cost of an epoch by `phase_key`."""
    shares = [phase["epochs"] for phase in STRATEGIES[strategy]["phases"]]
    cost = sum(share * epoch_seconds[phase_key(strategy, i)] for i, share in enumerate(shares))
    return [max(1, round(share * budget_seconds / cost)) for share in shares]
