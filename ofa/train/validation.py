"""Validation after each epoch: accuracies of a few fixed archs, and the best weights so far."""

from pathlib import Path

import numpy as np
from torch import nn

from ofa.core import distributed
from ofa.data.dataset import Data
from ofa.evaluate.subnets import evaluate_subnets
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet
from ofa.train.config import TrainConfig

_MAX_IMAGES = 2000


class Validation:
    """Evaluates the largest, the smallest and a few random archs, always the same ones.

    Their weights are those of `network`, such as the average of the supernet's; BatchNorm statistics come from
    `data.train`. The folder gets `best.safetensors`, the weights with the highest mean accuracy.
    """

    def __init__(
        self, supernet: Supernet, network: nn.Module, data: Data, config: TrainConfig, seed: int, folder: Path
    ) -> None:
        self._network, self._data, self._config, self._folder = network, data, config, folder
        self._supernet = supernet if network is supernet.network else Supernet(supernet.family)
        space = supernet.family.space
        rows = space.sample(config.validated_archs, np.random.default_rng((seed, *b"watched")))
        random = {f"random_{i}": space.decode(row) for i, row in enumerate(rows)}
        self.archs = {"largest": space.largest, "smallest": space.smallest} | random

    def __call__(self, best_top1_percent: float) -> tuple[dict[str, float], float]:
        """Return the accuracy of each arch in percent, and the highest mean so far; all processes share the work."""
        if self._supernet.network is not self._network:
            self._supernet.network.load_state_dict(self._network.state_dict())
        results = distributed.share_out(self._top1_percent, self.archs.values(), 1)
        top1_percent = {name: results[arch][0] for name, arch in self.archs.items()}
        mean = sum(top1_percent.values()) / len(top1_percent)
        if mean > best_top1_percent and distributed.rank() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._supernet.save(self._folder / "best.safetensors")
        return top1_percent, max(best_top1_percent, mean)

    def _top1_percent(self, archs: list[Arch]) -> dict[Arch, tuple[float]]:
        data, calibration_images = self._data, self._config.calibration_images
        metrics = evaluate_subnets(
            self._supernet, archs, data, data.validation, calibration_images=calibration_images, max_images=_MAX_IMAGES
        )
        return {arch: (result.top1_percent,) for arch, result in metrics}
