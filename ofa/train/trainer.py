"""The training loop: ask the strategy for archs, add up their gradients, one all-reduce, one optimizer step."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ofa.core import distributed
from ofa.core.errors import CheckpointError, TrainError
from ofa.core.files import write_text
from ofa.core.tensors import read_tensors
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.loaders import eval_batches, train_batches
from ofa.data.transforms import seeded
from ofa.evaluate.calibrate import calibrate
from ofa.space.arch import Arch, Rows
from ofa.space.search_space import SearchSpace
from ofa.supernet.sharing import shared_buffers
from ofa.supernet.supernet import Supernet
from ofa.train.channel_importance import channel_order, permute
from ofa.train.checkpoints import Checkpoints, pack_optimizer, unpack_optimizer
from ofa.train.config import TrainConfig
from ofa.train.log import Log
from ofa.train.schedule import Schedule
from ofa.train.step import Learner
from ofa.train.stopping import Stopped, stop_asked
from ofa.train.strategies import AnyPhase, Draw
from ofa.train.teacher import TeacherConfig
from ofa.train.validation import Watch

Progress = Callable[[int, int, str], None]


MacsM = Callable[[Rows], NDArray[np.float64]]


_ALL = 10**9


def train(
    supernet: Supernet,
    data: Data,
    data_config: DataConfig,
    config: TrainConfig,
    folder: Path,
    seed: int = 0,
    on_progress: Progress = lambda done, total, message: None,
    macs_m: MacsM = lambda rows: np.zeros(len(rows)),
) -> None:
    """Trains a supernet in place, going on from the newest checkpoint in the folder if there is one.

    Every random draw depends on the seed and the step alone, so a training that was killed and resumed
    ends with the same weights as one that never was. Processes that torchrun started together
    (`ofa.core.distributed.joined`) share each batch; one of them writes, and all must see the folder.

    Args:
        supernet: fresh, made with the same seed each time; ends with the averaged weights if `ema_decay` is set.
        data: `train` is learned from; `validation` is only looked at for the log.
        data_config: augmentation and loading.
        config: phases and hyper-parameters.
        folder: gets `checkpoints/` and `train.jsonl`, a line per epoch.
        seed: of archs, batches, augmentation and dropout.
        on_progress: called with steps done, steps in all and a message.
        macs_m: multiply-accumulates in millions of rows, for strategies that look at sizes.

    Raises:
        TrainError: the loss is no longer finite, or the settings do not fit the data or the processes.
        CheckpointError: checkpoints are there, but none can be read; or the initial weights do not fit.
        Stopped: Ctrl-C or SIGTERM came; the step it came in is saved.
    """
    if config.initial_weights is not None:
        _load_initial(supernet, Path(config.initial_weights))
    if config.phases:
        _Trainer(supernet, data, data_config, config, folder, seed, on_progress, macs_m).run()
    elif distributed.rank() == 0:
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
        macs_m: MacsM,
    ) -> None:
        self.supernet, self.data, self.data_config, self.config = supernet, data, data_config, config
        self.folder, self.seed, self.progress, self.macs_m = folder, seed, progress, macs_m
        if len(data.train) < config.batch_size:
            raise TrainError(
                f"train.batch_size = {config.batch_size} is more than the {len(data.train)} training images; lower it"
            )
        share, left = divmod(config.batch_size, distributed.world_size())
        if left or share < 2:
            raise TrainError(
                f"train.batch_size = {config.batch_size} cannot be shared by {distributed.world_size()} processes; "
                "give a multiple of their number, with at least 2 images for each"
            )
        self.part = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
        supernet.to(distributed.device())
        if config.channels_last:
            supernet.to(memory_format=torch.channels_last)
        self.per_epoch = len(data.train) // config.batch_size
        self.epochs: list[_Epoch] = []
        for phase in config.phases:
            epoch = _Epoch(phase, _space(supernet.family.space, phase), first_step=len(self.epochs) * self.per_epoch)
            self.epochs += [epoch] * phase.epochs
        self.total = self.per_epoch * len(self.epochs)
        self.optimizer = create_optimizer_v2(
            supernet.network, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )
        self.schedule = Schedule(self.optimizer, config, self.per_epoch)
        self.ema = ModelEmaV3(supernet.network, config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.learner = Learner(supernet, config)
        self._calibrate_teacher()
        augment = data_config.augment
        mixed = augment.mixup > 0 or augment.cutmix > 0
        if mixed and share % 2:
            raise TrainError(f"mixup and cutmix want an even number of images per process, not {share}")
        self.mixup = mixed and Mixup(
            augment.mixup, augment.cutmix, label_smoothing=config.label_smoothing, num_classes=len(data.labels)
        )
        self.checkpoints = Checkpoints(folder / "checkpoints", config.checkpoints)
        shown = supernet if self.ema is None else Supernet(supernet.family)  # with the weights that are deployed
        self.watch = Watch(shown, data, config, seed, self.checkpoints.folder)
        self.step = 0
        self.loss_sums: dict[str, list[float]] = {}  # of this epoch: for each kind of arch, sum and number of losses
        self.history: list[dict[str, Any]] = []

    def _calibrate_teacher(self) -> None:
        """A supernet's BatchNorm statistics are those of all its subnets together; as a teacher it gets its own."""
        teacher = self.config.teacher
        if isinstance(teacher, TeacherConfig) and teacher.is_supernet:
            resolution = teacher.resolution or max(self.supernet.family.resolutions)
            images = eval_batches(self.data, self.data.train, resolution, limit=self.config.calibration_images)
            assert self.learner.teacher is not None
            calibrate(self.learner.teacher, images)

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self.log = Log(self.folder, self.step, self.config.tensorboard and distributed.rank() == 0)
        last_save = time.monotonic()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), stop_asked() as asked, self.log:
            # Gradients of subnets are strided views by design; torch says itself that this is not an error.
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
            stop = False
            while self.step < self.total:
                epoch, start = divmod(self.step, self.per_epoch)
                if start == 0:
                    self._begin_epoch(epoch)
                for images, labels in self._batches(epoch, start):
                    losses, stop = self._train_step(images, labels, self.epochs[epoch], asked())
                    self.step += 1
                    self.log.step(self.step, losses, self.optimizer.param_groups[0]["lr"])
                    self.progress(
                        self.step, self.total, f"epoch {epoch + 1}/{len(self.epochs)}, loss {losses[0][1]:.3f}"
                    )
                    within_epoch = self.step % self.per_epoch != 0
                    due = time.monotonic() - last_save > self.config.checkpoint_seconds
                    if within_epoch and (due or stop):
                        self._save()
                        last_save = time.monotonic()
                    if within_epoch and stop:
                        raise self._stopped()
                self._end_epoch(epoch)
                self._save()
                last_save = time.monotonic()
                if stop and self.step < self.total:
                    raise self._stopped()
        if self.ema is not None:
            self.supernet.network.load_state_dict(self.ema.module.state_dict())

    # A step

    def _batches(self, epoch: int, start: int) -> Any:
        what = self.epochs[epoch]

        def resolution(number: int) -> int:
            draw = self._draw(what, epoch * self.per_epoch + number, lambda archs: [0.0] * len(archs))
            return max(int(arch["resolution"]) for arch in what.phase.archs(draw))

        return train_batches(
            self.data,
            self.data_config,
            resolution,
            self.config.batch_size,
            self.seed,
            epoch,
            start,
            self.part,
        )

    def _draw(self, epoch: _Epoch, step: int, losses: Callable[[list[Arch]], list[float]]) -> Draw:
        rng = self._seed_and_rng(step)[1]
        return Draw(epoch.space, step, rng, self.seed, partial(self._macs_m, epoch.space), losses)

    def _seed_and_rng(self, step: int) -> tuple[int, np.random.Generator]:
        """Of a step: the seed of dropout, another in each process, and the generator of archs."""
        rank, rng = distributed.rank(), np.random.default_rng((self.seed, step))
        seed = int(rng.integers(2**31)) + rank
        if self.config.different_archs and rank > 0:
            rng = np.random.default_rng((self.seed, step, rank))
        return seed, rng

    def _macs_m(self, space: SearchSpace, rows: Rows) -> NDArray[np.float64]:
        whole = self.supernet.family.space
        return self.macs_m(rows if space is whole else whole.rows(space.decode(row) for row in rows))

    def _train_step(
        self, images: Tensor, labels: Tensor, epoch: _Epoch, asked: bool
    ) -> tuple[list[tuple[str, float]], bool]:
        """One optimizer step over the strategy's archs; their kinds and losses, and whether anybody asked to stop."""
        device = distributed.device()
        images, labels = images.to(device), labels.to(device)
        torch.manual_seed(self._seed_and_rng(self.step)[0])
        archs = epoch.phase.archs(
            self._draw(epoch, self.step, lambda tried: self.learner.losses(tried, images, labels))
        )
        if self.mixup:
            with seeded(self.seed, self.step, distributed.rank()):
                images, labels = self.mixup(images, labels)
        self.schedule.set(self.step)
        self.supernet.zero_grad()
        losses = torch.stack(self.learner.learn(archs, images, labels, self._weight(epoch)))
        stop = torch.tensor([float(asked)], device=device)
        distributed.average_(chain(self._gradients_and_statistics(), [losses, stop]))
        values = losses.tolist()
        for arch, value in zip(archs, values, strict=True):
            if not math.isfinite(value) or value > self.config.max_loss:
                raise self._diverged(arch, value)
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.supernet.network.parameters(), self.config.clip_grad_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.supernet.network, step=self.step)
        space = self.supernet.family.space
        kinds = {space.largest: "largest", space.smallest: "smallest"}
        named = [(kinds.get(arch, "others"), value) for arch, value in zip(archs, values, strict=True)]
        for kind, value in named:
            total, number = self.loss_sums.get(kind, (0.0, 0))
            self.loss_sums[kind] = [total + value, number + 1]
        return named, bool(stop > 0)

    def _gradients_and_statistics(self) -> Iterator[Tensor]:
        yield from (p.grad for p in self.supernet.parameters() if p.grad is not None)
        yield from (buffer for _, buffer in shared_buffers(self.supernet.network) if buffer.is_floating_point())

    def _weight(self, epoch: _Epoch) -> float:
        """Of the losses of archs smaller than the largest, rising from the phase's first step on."""
        ramp = epoch.phase.ramp_epochs * self.per_epoch
        return min(1.0, (self.step - epoch.first_step + 1) / ramp) if ramp else 1.0

    def _diverged(self, arch: Arch, loss: float) -> TrainError:
        kept = self.checkpoints.paths()
        last = f"the last checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
        what = f"above train.max_loss = {self.config.max_loss:g}" if math.isfinite(loss) else "not finite"
        return TrainError(
            f"the loss {loss:.4g} is {what} at step {self.step} of {self.total}, for {arch.to_json()}; {last}; "
            "lower train.lr, set train.clip_grad_norm, or look for broken images"
        )

    # An epoch

    def _begin_epoch(self, epoch: int) -> None:
        """What happens once before a phase: channels are sorted, the largest network becomes the teacher."""
        now, before = self.epochs[epoch], self.epochs[epoch - 1] if epoch else None
        if now is before:
            return
        if now.phase.sort_channels:
            elastic = [done.space for done in self.epochs[:epoch] if done.phase.strategy != "full"]
            self._sort_channels(elastic[-1] if elastic else None)
        shrinks = now.phase.strategy != "full" and (before is None or before.phase.strategy == "full")
        if shrinks and self.config.teacher == "full":
            self.learner.freeze_teacher(self.ema.module.state_dict() if self.ema is not None else None)

    def _sort_channels(self, trained: SearchSpace | None) -> None:
        """Sorts the weights, their average and the optimizer's moments alike."""
        network, state = self.supernet.network, self.optimizer.state
        order = channel_order(self.supernet, trained)
        permute(network.state_dict(), order)
        if self.ema is not None:
            permute(self.ema.module.state_dict(), order)
        for name, parameter in network.named_parameters():
            for moment in state.get(parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    permute({name: moment}, order)

    def _end_epoch(self, epoch: int) -> None:
        """Adds the epoch's mean losses and the accuracies of some archs to the log."""
        if self.ema is not None:
            self.watch.supernet.network.load_state_dict(self.ema.module.state_dict())
        line: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": self.step,
            "strategy": self.epochs[epoch].phase.strategy,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": {kind: total / number for kind, (total, number) in self.loss_sums.items()},
        }
        for name, value in self.watch.judge(epoch + 1).items():
            line[f"{name.replace(' ', '_')}_top1_percent"] = value
        self.loss_sums = {}
        self.history.append(line)
        if distributed.rank() == 0:
            self.log.epoch(self.history)

    # Stopping and going on

    def _stopped(self) -> Stopped:
        return Stopped(
            f"stopped after step {self.step} of {self.total}, which is saved in {self.checkpoints.folder}; the same "
            "command goes on from there"
        )

    def _save(self) -> None:
        if distributed.rank() != 0:
            return
        tensors, optimizer = pack_optimizer(self.optimizer)
        tensors = {f"optimizer.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {f"network.{name}": tensor for name, tensor in self.supernet.network.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        if self.config.teacher == "full" and self.learner.teacher is not None:
            tensors |= {f"teacher.{name}": tensor for name, tensor in self.learner.teacher.state_dict().items()}
        state = {
            "step": self.step,
            "total": self.total,
            "optimizer": optimizer,
            "history": self.history,
            "loss_sums": self.loss_sums,
            "best": self.watch.best,
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
        self.watch.best = state["best"]
        self.supernet.network.load_state_dict(_under("network.", tensors))
        unpack_optimizer(self.optimizer, _under("optimizer.", tensors), state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(_under("ema.", tensors))
        teacher = _under("teacher.", tensors)
        if teacher:
            self.learner.freeze_teacher(teacher)


@dataclass(frozen=True)
class _Epoch:
    """What an epoch trains: its phase, what is elastic in that, and the phase's first step."""

    phase: AnyPhase
    space: SearchSpace
    first_step: int


def _space(space: SearchSpace, phase: AnyPhase) -> SearchSpace:
    """What is elastic in a phase."""
    if phase.elastic is None or phase.strategy == "full":
        return space
    return space.keep_largest({name: _ALL if n == "all" else n for name, n in phase.elastic.items()})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
