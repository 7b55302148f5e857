"""What a training shows of itself after each epoch: accuracies of a few fixed archs, and the best weights so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa.core import distributed
from ofa.core.tensors import write_tensors
from ofa.data.dataset import Data
from ofa.evaluate.subnets import evaluate_subnets
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet
from ofa.train.config import TrainConfig

_JUDGED = 2000
"""Validation images that accuracies are of."""


class Watch:
    """Judges the largest, the smallest and a few random archs, always the same.

    Args:
        supernet: with the weights that are deployed.
        data: `validation` is judged on, `train` re-estimates BatchNorm.
        config: says how many archs and images.
        seed: of the random archs.
        folder: gets `best.safetensors`, the weights that did best on average.
    """

    def __init__(self, supernet: Supernet, data: Data, config: TrainConfig, seed: int, folder: Path) -> None:
        self.supernet, self.data, self.config, self.folder = supernet, data, config, folder
        space = supernet.family.space
        rows = space.sample(config.watched_archs, np.random.default_rng((seed, *b"watched")))
        random = {f"random {i}": space.decode(row) for i, row in enumerate(rows)}
        self.archs = {"largest": space.largest, "smallest": space.smallest} | random
        self.best = 0.0

    def judge(self, epoch: int) -> dict[str, float]:
        """Accuracies in percent by the archs' names, shared out among all processes; keeps the best weights."""
        found = distributed.share_out(self._accuracies, self.archs.values(), 1)
        accuracies = {name: found[arch][0] for name, arch in self.archs.items()}
        mean = sum(accuracies.values()) / len(accuracies)
        if mean > self.best and distributed.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            said = {"family": self.supernet.family.name, "epoch": str(epoch)}
            write_tensors(self.folder / "best.safetensors", self.supernet.network.state_dict(), said)
        self.best = max(self.best, mean)
        return accuracies

    def _accuracies(self, archs: list[Arch]) -> dict[Arch, tuple[float]]:
        data, n = self.data, self.config.calibration_images
        scores = evaluate_subnets(self.supernet, archs, data, data.validation, n, _JUDGED)
        return {arch: (found.top1_percent,) for arch, found in scores}
