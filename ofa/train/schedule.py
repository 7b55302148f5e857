"""The learning rate of each step: warm-up and cosine, for each schedule that a phase starts."""

from bisect import bisect_right
from itertools import accumulate

from timm.scheduler import CosineLRScheduler
from torch.optim import Optimizer

from ofa.train.config import TrainConfig


class Schedule:
    """Sets an optimizer's learning rate; keeps no state but the optimizer's."""

    def __init__(self, optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int) -> None:
        parts: list[list[float]] = []  # for each schedule: learning rate, epochs of warm-up, epochs
        for i, phase in enumerate(config.phases):
            if i == 0 or phase.lr is not None:
                warmup = phase.warmup_epochs
                if warmup is None:
                    warmup = config.warmup_epochs if i == 0 else 0.0
                parts.append([phase.lr or config.lr, warmup, 0.0])
            parts[-1][2] += phase.epochs
        self._starts = [0, *accumulate(int(epochs) * steps_per_epoch for _, _, epochs in parts)][:-1]
        self._schedulers = []
        for lr, warmup, epochs in parts:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = lr
            self._schedulers.append(
                CosineLRScheduler(
                    optimizer,
                    t_initial=int(epochs) * steps_per_epoch,
                    warmup_t=int(warmup * steps_per_epoch),
                    warmup_lr_init=lr / 100,
                    lr_min=config.min_lr,
                    t_in_epochs=False,
                )
            )

    def set(self, step: int) -> None:
        """Set the learning rate for a step of the whole training."""
        part = bisect_right(self._starts, step) - 1
        self._schedulers[part].step_update(step - self._starts[part])
