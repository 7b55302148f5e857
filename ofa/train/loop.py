"""The training loop: ask the strategy for archs, accumulate their gradients in the supernet, one optimiser step."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ofa.calibrate import accuracy_percent, calibrate
from ofa.config import Config
from ofa.data import Data, DataConfig, eval_batches, fit, train_batches
from ofa.errors import CheckpointError, TrainError
from ofa.files import write_text
from ofa.space import Arch
from ofa.supernet import Supernet
from ofa.tensors import read_tensors
from ofa.train.checkpoint import Checkpoints, pack_optimizer, unpack_optimizer
from ofa.train.strategy import STRATEGIES

Progress = Callable[[int, int, str], None]


class PhaseConfig(Config):
    """Some epochs with one strategy."""

    strategy: Literal["full", "sandwich"]
    """`full`: the largest network alone. `sandwich`: largest, smallest and random archs in each step."""
    epochs: int = Field(ge=1)
    """Passes over the training images."""
    random: int = Field(2, ge=0, le=16)
    """`sandwich`: how many random archs a step trains beside the largest and the smallest."""


class TrainConfig(Config):
    """How a supernet is trained. One cosine learning rate schedule runs over all phases."""

    initial_weights: str | None = None
    """A safetensors file to start from: what `ofa import` wrote, or another run's `supernet.safetensors`. A classifier
    of another number of classes starts anew."""
    phases: list[PhaseConfig]
    """What is trained, in order; may be empty if there are initial weights."""
    batch_size: int = Field(128, ge=2)
    """Images per step; the last, smaller batch of an epoch is left out."""
    optimizer: str = "sgd"
    """Any name that timm's `create_optimizer_v2` knows; `sgd` has Nesterov momentum."""
    lr: float = Field(0.1, gt=0)
    """Highest learning rate, reached after the warm-up. The losses of a step's archs are summed."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD and the like; Adam-like optimisers keep their own."""
    weight_decay: float = Field(3e-5, ge=0)
    """Not applied to biases and BatchNorm."""
    warmup_epochs: float = Field(1.0, ge=0)
    """Over which the learning rate rises linearly."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the labels that the largest network learns from."""
    distill: bool = True
    """In-place distillation: archs learn from the largest network's logits instead of the labels."""
    clip_grad_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; null for no bound."""
    ema_decay: float | None = Field(0.999, gt=0, lt=1)
    """Decay of the average of the weights that the run ends with; null for the last weights themselves."""
    channels_last: bool = True
    """Memory layout; trains depthwise networks about 2.5 times faster on CPUs."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """How often a checkpoint is written; also after each epoch. When does not change the result."""
    calibration_images: int = Field(512, ge=1)
    """For the accuracies shown after each epoch."""

    @model_validator(mode="after")
    def _something_to_do(self) -> TrainConfig:
        if not self.phases and self.initial_weights is None:
            raise ValueError("phases is empty, which wants initial_weights; give at least one phase or weights")
        return self


def train(
    supernet: Supernet,
    data: Data,
    data_config: DataConfig,
    config: TrainConfig,
    folder: Path,
    seed: int = 0,
    on_progress: Progress = lambda done, total, message: None,
) -> None:
    """Trains a supernet in place, going on from the newest checkpoint in the folder if there is one.

    Every random draw depends on the seed and the step alone, so a training that was killed and resumed
    ends with the same weights as one that never was.

    Args:
        supernet: fresh, made with the same seed each time; ends with the averaged weights if `ema_decay` is set.
        data: `train` is learned from; `validation` is only looked at for the log.
        data_config: augmentation and loading.
        config: phases and hyper-parameters.
        folder: gets `checkpoints/` and `train.jsonl`, a line per epoch.
        seed: of archs, batches, augmentation and dropout.
        on_progress: called with steps done, steps in all and a message.

    Raises:
        TrainError: the loss is no longer finite.
        CheckpointError: checkpoints are there, but none can be read.
    """
    if config.initial_weights is not None:
        _load_initial(supernet, Path(config.initial_weights))
    if config.phases:
        _Trainer(supernet, data, data_config, config, folder, seed, on_progress).run()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "train.jsonl", "")


def _load_initial(supernet: Supernet, path: Path) -> None:
    tensors, _ = read_tensors(path)
    ours = supernet.network.state_dict()
    for name in supernet.classifier_names:
        if name in tensors and tensors[name].shape[0] != ours[name].shape[0]:
            tensors[name] = ours[name]
    try:
        supernet.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"train.initial_weights = {path} holds another network than this family: {error}; give the weights or the "
            "family's options that belong together"
        ) from error


class _Trainer:
    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        data_config: DataConfig,
        config: TrainConfig,
        folder: Path,
        seed: int,
        progress: Progress,
    ) -> None:
        self.supernet, self.data, self.data_config, self.config = supernet, data, data_config, config
        self.folder, self.seed, self.progress = folder, seed, progress
        if len(data.train) < config.batch_size:
            raise TrainError(
                f"train.batch_size = {config.batch_size} is more than the {len(data.train)} training images; lower it"
            )
        if config.channels_last:
            supernet.to(memory_format=torch.channels_last)
        self.per_epoch = len(data.train) // config.batch_size
        self.phases = [phase for phase in config.phases for _ in range(phase.epochs)]  # one per epoch
        self.total = self.per_epoch * len(self.phases)
        self.resolution = max(supernet.family.resolutions)
        self.optimizer = create_optimizer_v2(
            supernet.network, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=self.total,
            warmup_t=int(config.warmup_epochs * self.per_epoch),
            warmup_lr_init=config.lr / 100,
            lr_min=0.0,
            t_in_epochs=False,
        )
        self.ema = ModelEmaV3(supernet.network, config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.hard_loss = LabelSmoothingCrossEntropy(config.label_smoothing)
        self.soft_loss = SoftTargetCrossEntropy()
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.step = 0
        self.loss_sums: list[float] = []  # over the steps of this epoch
        self.history: list[dict[str, Any]] = []

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        last_save = time.monotonic()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Gradients of subnets are strided views by design; torch says itself that this is not an error.
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
            while self.step < self.total:
                epoch, start = divmod(self.step, self.per_epoch)
                batches = train_batches(
                    self.data, self.data_config, self.resolution, self.config.batch_size, self.seed, epoch, start
                )
                for images, labels in batches:
                    losses = self._train_step(images, labels, self.phases[epoch])
                    sums = self.loss_sums or [0.0] * len(losses)
                    self.loss_sums = [total + loss for total, loss in zip(sums, losses, strict=True)]
                    self.step += 1
                    self.progress(self.step, self.total, f"epoch {epoch + 1}/{len(self.phases)}, loss {losses[0]:.3f}")
                    within_epoch = self.step % self.per_epoch != 0
                    if within_epoch and time.monotonic() - last_save > self.config.checkpoint_seconds:
                        self._save()
                        last_save = time.monotonic()
                self._log_epoch(epoch)
                self.loss_sums = []
                self._save()
                last_save = time.monotonic()
        if self.ema is not None:
            self.supernet.network.load_state_dict(self.ema.module.state_dict())

    def _train_step(self, images: Tensor, labels: Tensor, phase: PhaseConfig) -> list[float]:
        """One optimiser step over the archs of the strategy; returns their losses."""
        rng = np.random.default_rng((self.seed, self.step))
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        space = self.supernet.family.space
        archs = STRATEGIES[phase.strategy](space, phase.random, rng)
        self.scheduler.step_update(self.step)
        self.supernet.train()
        self.supernet.zero_grad()
        losses, teacher = [], None
        for arch in archs:
            logits = self._forward(arch, images)
            if teacher is None or not self.config.distill:
                loss = self.hard_loss(logits, labels)
            else:
                loss = self.soft_loss(logits, teacher)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise self._not_finite(arch)
            loss.backward()
            if arch == space.largest:
                teacher = logits.detach().softmax(dim=1)
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.supernet.network.parameters(), self.config.clip_grad_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.supernet.network, step=self.step)
        return losses

    def _forward(self, arch: Arch, images: Tensor) -> Tensor:
        scaled = fit(images, int(arch["resolution"]))
        if self.config.channels_last:
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.supernet.subnet(arch)(scaled)
        return logits

    def _not_finite(self, arch: Arch) -> TrainError:
        kept = self.checkpoints.paths()
        last = f"the last checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
        return TrainError(
            f"the loss is not finite at step {self.step} of {self.total}, for {arch.to_json()}; {last}; "
            "lower train.lr, set train.clip_grad_norm, or look for broken images"
        )

    def _log_epoch(self, epoch: int) -> None:
        """Adds the epoch's mean losses and validation accuracies of the largest and smallest network to the log."""
        space = self.supernet.family.space
        line: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": self.step,
            "strategy": self.phases[epoch].strategy,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": [total / self.per_epoch for total in self.loss_sums],
        }
        for name, arch in {"largest": space.largest, "smallest": space.smallest}.items():
            network = self.supernet.extract(arch)
            resolution = int(arch["resolution"])
            calibrate(
                network, eval_batches(self.data, self.data.train, resolution, limit=self.config.calibration_images)
            )
            batches = eval_batches(self.data, self.data.validation, resolution, limit=2000)
            line[f"{name}_accuracy_percent"] = accuracy_percent(network, batches)
        self.history.append(line)
        write_text(self.folder / "train.jsonl", "".join(json.dumps(entry) + "\n" for entry in self.history))

    def _save(self) -> None:
        tensors, optimizer = pack_optimizer(self.optimizer)
        tensors = {f"optimizer.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {f"network.{name}": tensor for name, tensor in self.supernet.network.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        state = {
            "step": self.step,
            "total": self.total,
            "optimizer": optimizer,
            "history": self.history,
            "loss_sums": self.loss_sums,
        }
        self.checkpoints.save(self.step, tensors, state)

    def _resume(self) -> None:
        found = self.checkpoints.load()
        if found is None:
            return
        tensors, state, broken = found
        for message in broken:
            warnings.warn(f"{message}; going on from step {state['step']}", stacklevel=2)
        self.step, self.history, self.loss_sums = state["step"], state["history"], state["loss_sums"]
        self.supernet.network.load_state_dict(_under("network.", tensors))
        unpack_optimizer(self.optimizer, _under("optimizer.", tensors), state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(_under("ema.", tensors))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
