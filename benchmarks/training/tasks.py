"""What is compared on what: families, images, strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ofa import Arch, Family, create_family
from ofa.cost.counted import macs_m
from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.dataset import Data, TensorImages
from ofa.data.load import load_data
from ofa.train.config import TrainConfig

IMAGES, VALIDATION, BATCH = 2_000, 1_000, 64
"""Training images (the same for all that is compared), validation images for the training's log, images per step.

The size was picked with another seed, by what fits into the time: over 4,000 images for as many steps (40 epochs), a
supernet stays some 1 point behind networks alone; over 1,000, networks alone hardly differ from each other.
"""
AUGMENT = AugmentConfig(scale=(0.85, 1.0), ratio=(0.9, 1.11), hflip=0.5)
DATA = DataConfig(name="fashion_mnist", augment=AUGMENT)


@dataclass(frozen=True)
class Task:
    """A family and how long its supernet is trained.

    Attributes:
        family: its name.
        options: of the family.
        epochs: of the supernet, and of each network that is trained alone.
        alone: how many archs are trained alone.
    """

    family: str
    options: dict[str, Any]
    epochs: int
    alone: int

    def make(self) -> Family:
        """The family for Fashion-MNIST."""
        return create_family(self.family, num_classes=10, in_channels=1, **self.options)


TASKS = {
    "cnn": Task("small_mobilenet_v3", {"resolutions": [12, 16, 20, 24], "width_mult": 0.5}, epochs=80, alone=20),
    "hybrid": Task("hybrid_small", {"resolutions": [12, 16]}, epochs=80, alone=8),
}
SHARE = 1 / 4
"""Of the cost of the supernet that is compared with networks trained alone: what each of the strategies may cost."""


@cache
def data() -> Data:
    """Fashion-MNIST with a part of its training and validation images and all of its test images."""
    whole = load_data(DATA)
    rng = np.random.default_rng(0)
    parts: list[TensorImages] = []
    for images, n in ((whole.train, IMAGES), (whole.validation, VALIDATION)):
        assert isinstance(images, TensorImages)
        parts.append(images.subset(np.sort(rng.permutation(len(images))[:n])))
    return replace(whole, train=parts[0], validation=parts[1])


def spread_archs(made: Family, n: int) -> list[Arch]:
    """The smallest, the largest, and archs between them whose MACs are evenly spread on a logarithmic scale."""
    space = made.space
    pool = space.sample(2000, np.random.default_rng(11))
    ends = space.rows([space.smallest, space.largest])
    cost = np.log(macs_m(made)(pool))
    low, high = np.log(macs_m(made)(ends))
    between = [int(np.abs(cost - target).argmin()) for target in np.linspace(low, high, n)[1:-1]]
    return [space.smallest, *(space.decode(pool[i]) for i in between), space.largest]


def fixed_archs(made: Family) -> list[Arch]:
    """50 random archs, the same for every strategy and seed."""
    return [made.space.decode(row) for row in made.space.sample(50, np.random.default_rng(12))]


# Strategies

_STAGES: list[tuple[float, float, dict[str, Any]]] = [
    # of once-for-all (arXiv 1908.09791, appendix B): epochs, learning rate relative to the largest network's, phase
    (180, 1.0, {"strategy": "full"}),
    (125, 0.37, {"strategy": "uniform", "elastic": {"resolution": "all", "*.kernel": "all"}}),
    (
        25,
        0.03,
        {"strategy": "uniform", "subnets": 2, "elastic": {"resolution": "all", "*.kernel": "all", "*.depth": 2}},
    ),
    (
        125,
        0.09,
        {"strategy": "uniform", "subnets": 2, "elastic": {"resolution": "all", "*.kernel": "all", "*.depth": "all"}},
    ),
    (
        25,
        0.03,
        {
            "strategy": "uniform",
            "subnets": 4,
            "sort_channels": True,
            "elastic": {"resolution": "all", "*.kernel": "all", "*.depth": "all", "*.expand": 2},
        },
    ),
    (125, 0.09, {"strategy": "uniform", "subnets": 4, "sort_channels": True}),
]
_SANDWICH = {"strategy": "sandwich", "random": 2}
_LARGER = _SANDWICH | {"random": 8}
_TEACHER_ONLY = {"distill": {"labels_weight": 0.0}}

STRATEGIES: dict[str, tuple[list[tuple[float, dict[str, Any]]], dict[str, Any]]] = {
    "single path, labels": ([(1, {"strategy": "uniform"})], {"teacher": "none"}),
    "strictly fair, labels": ([(1, {"strategy": "fair"})], {"teacher": "none"}),
    "progressive shrinking": (
        [(epochs, phase) for epochs, _, phase in _STAGES],
        {"teacher": "full"},
    ),
    "sandwich, labels": ([(1, _SANDWICH)], {"teacher": "none"}),
    "sandwich": ([(1, _SANDWICH)], _TEACHER_ONLY),
    "sandwich, teacher and labels": ([(1, _SANDWICH)], {}),
    "sandwich of 10, teacher and labels": ([(1, _LARGER)], {"warmup_epochs": 2}),
    "full, then sandwich": ([(2, {"strategy": "full"}), (11, _SANDWICH)], _TEACHER_ONLY),
    "sandwich, alpha divergence": ([(1, _SANDWICH)], {"distill": {"loss": "alpha", "labels_weight": 0.0}}),
    "best-up": ([(1, {"strategy": "pareto", "random": 2, "attend": "best"})], _TEACHER_ONLY),
    "worst-up": ([(1, {"strategy": "pareto", "random": 2, "attend": "worst"})], _TEACHER_ONLY),
    "delayed shrinking": ([(1, {"strategy": "full"}), (1, _SANDWICH | {"ramp_epochs": 2.0})], _TEACHER_ONLY),
}
"""By name: phases with how many epochs each has relative to the others, and the settings that differ."""
WHOLE, HALF = "as long as alone", "at half the cost"
TWO_PROCESSES = {"by two processes, same archs": False, "by two processes, different archs": True}
LARGE, DEFAULT = "sandwich of 10, teacher and labels", "sandwich, teacher and labels"
"""The one that is compared with networks alone, and the one of this project's recipes."""
REFERENCE = "progressive shrinking"
LR = {"full": 0.2, "uniform": 0.2, "fair": 0.1, "sandwich": 0.15, "pareto": 0.15}
"""Highest learning rates, picked on validation images with another seed; losses of a step's archs are summed.

Networks alone, against 0.2 (CNN, one seed, test points): 0.1 gives +0.3 and -0.3 (archs 7, 15), 0.4 gives -0.1 and -1.0
(the same), 0.05 gives +0.2 (arch 19); on 1,000 validation images +1.4 and -0.2, -1.2 and -0.5, -0.5.
"""
CLIP = 5.0
"""Largest norm of a supernet's gradient, the sum over a step's archs. A network alone stays below it."""
COMMON: dict[str, Any] = {
    "batch_size": BATCH,
    "ema_decay": 0.99,
    "calibration_images": 512,
    "checkpoint_seconds": 1e9,
    "watched_archs": 0,
    "warmup_epochs": 0.5,
}


def epochs_for(strategy: str, budget: float, seconds: dict[str, float]) -> list[int]:
    """How many epochs each phase of a strategy gets, so that all together cost a budget.

    Args:
        strategy: of `STRATEGIES`.
        budget: in seconds of the machine on which `seconds` were measured.
        seconds: of an epoch of each phase, by `phase_key`.
    """
    shares = [share for share, _ in STRATEGIES[strategy][0]]
    cost = sum(share * seconds[phase_key(strategy, i)] for i, share in enumerate(shares))
    return [max(1, round(share * budget / cost)) for share in shares]


def config(strategy: str, epochs: list[int], more: dict[str, Any] | None = None) -> TrainConfig:
    """A strategy's training with so many epochs of each phase, and settings that differ."""
    parts, settings = STRATEGIES[strategy]
    phases = [phase | {"epochs": n} for n, (_, phase) in zip(epochs, parts, strict=True)]
    if strategy == REFERENCE:
        for phase, (_, lr, _) in zip(phases, _STAGES, strict=True):
            phase["lr"] = LR["full"] * lr
    own = {"phases": phases, "lr": LR[phases[-1]["strategy"]], "clip_grad_norm": CLIP}
    return TrainConfig.model_validate(COMMON | own | settings | (more or {}))


def phase_key(strategy: str, i: int) -> str:
    """Names a phase of a strategy where its cost is kept."""
    return f"{strategy}/{i}"


def job_name(task: str, strategy: str, said: str = "") -> str:
    """Names a supernet's training where its result is kept."""
    return " ".join(filter(None, (f"supernet {task}:", strategy, said)))


def alone_name(task: str, i: int) -> str:
    """Names the training of a network alone where its result is kept."""
    return f"alone {task}: {i}"
