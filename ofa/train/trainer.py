"""The training loop: ask for archs, accumulate their gradients, average over processes, one optimizer step."""

import json
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import Mixup
from torch import Tensor, nn

from ofa.core import distributed
from ofa.core.errors import TrainError
from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.data.loaders import Batch, eval_batches, train_batches
from ofa.data.transforms import seeded
from ofa.evaluate.calibrate import calibrate
from ofa.space.arch import Arch, Rows
from ofa.space.search_space import SearchSpace
from ofa.supernet.sharing import shared_buffers
from ofa.supernet.supernet import Supernet
from ofa.train.checkpoints import Checkpoints
from ofa.train.config import TrainConfig
from ofa.train.gradient_buckets import GradientBuckets
from ofa.train.loader_wait import LoaderWait
from ofa.train.log import TrainLog
from ofa.train.losses import balanced_weights
from ofa.train.plan import PhaseSpan, Plan
from ofa.train.schedule import Schedule
from ofa.train.state import TrainingState
from ofa.train.step import TrainingStep
from ofa.train.stopping import Stopped, stop_requested
from ofa.train.strategies import BatchDraw, Draw, MacsM, Spread
from ofa.train.teacher import TeacherConfig
from ofa.train.validation import Validation

Progress = Callable[[int, int, str], None]
_READ_EVERY = {"cuda": 10}
"""Steps after which losses are read, by type of device: a GPU would have to finish each step before the next begins."""


class _Step(NamedTuple):
    """A step that was taken: its number from 1 on, its archs, their losses `[archs]`, and whether to stop `[1]`."""

    number: int
    lr: float
    archs: list[Arch]
    losses: Tensor
    stop: Tensor


def train(
    supernet: Supernet,
    data: Data,
    config: TrainConfig,
    *,
    folder: Path,
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  # frozen
    workers: int = 0,
    seed: int = 0,
    macs_m: MacsM | None = None,
    on_progress: Progress = lambda done, total, message: None,
) -> list[dict[str, Any]]:
    """Train a supernet in place; resumes from the newest checkpoint in the folder.

    Every random draw depends on the seed and the step alone, so an interrupted and resumed training ends with the same
    weights, to the last bit. Processes that torchrun started together (`ofa.core.distributed.joined`) share each batch;
    rank 0 writes, and all must see the folder.

    Args:
        supernet: fresh, made with the same seed each time; ends with the averaged weights if `ema_decay` is set.
        data: `train` is learned from; `validation` is evaluated for the log.
        config: phases and hyperparameters.
        folder: gets `checkpoints/` and `train.jsonl`, a line per epoch.
        augment: augmentation of the training images.
        workers: processes that load images; 0 loads in this one.
        seed: seed of archs, batches, augmentation and dropout.
        macs_m: size of archs, such as `ofa.macs_m(supernet.family)`; required by strategy `pareto`.
        on_progress: called with steps done, steps in all and a message.

    Returns:
        The history, a record per epoch: `epoch`, `step`, `strategy`, `lr`, `loss` (mean for each kind of arch:
        `largest`, `smallest`, `others`), and validation accuracies `largest_top1_percent`, `smallest_top1_percent`,
        `random_0_top1_percent`, ...

    Raises:
        TrainError: the loss is no longer finite, or the settings do not fit the data or the processes.
        CheckpointError: no checkpoint in the folder can be read, or the initial weights are another network's.
        Stopped: Ctrl-C or SIGTERM; the current step is saved.
    """
    if config.initial_weights is not None:
        supernet.load_weights(config.initial_weights, new_classifier=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not config.phases:
        if distributed.rank() == 0:
            TrainLog(folder).write_epochs([])
        return []
    by_size = [phase.strategy for phase in config.phases if phase.strategy in ("pareto", "spread")]
    if macs_m is None and by_size:
        raise TrainError(f"strategy {by_size[0]!r} asks for sizes of archs; give train(..., macs_m=ofa.macs_m(family))")
    return _Trainer(supernet, data, config, folder, augment, workers, seed, macs_m, on_progress).run()


@dataclass(eq=False)
class _Trainer:
    supernet: Supernet
    data: Data
    config: TrainConfig
    folder: Path
    augment: AugmentConfig
    workers: int
    seed: int
    macs_m: MacsM | None
    on_progress: Progress

    def __post_init__(self) -> None:
        supernet, data, config = self.supernet, self.data, self.config
        images_per_process = _images_per_process(config, len(data.train))
        self.part = slice(distributed.rank() * images_per_process, (distributed.rank() + 1) * images_per_process)
        self.mixup = _mixup(self.augment, config, len(data.labels), images_per_process)
        supernet.to(distributed.device())
        if config.channels_last:
            supernet.to(memory_format=torch.channels_last)
        self.plan = Plan(config.phases, supernet.family.space, len(data.train) // config.batch_size)
        self.unread: list[_Step] = []
        self.read_every = _READ_EVERY.get(distributed.device().type, 1)
        weights = _class_weights(config, data)
        self.training_step = TrainingStep(supernet, config, len(data.labels), weights)
        if isinstance(config.teacher, TeacherConfig) and config.teacher.is_supernet:
            _calibrate(self.training_step, data)
        self.buckets = GradientBuckets(supernet.parameters())
        self.state = TrainingState(supernet, config, self.training_step)
        self.schedule = Schedule(self.state.optimizer, config, self.plan.steps_per_epoch)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", config.checkpoints)
        self.validation = Validation(supernet, self.state.deployed, data, config, self.seed, self.checkpoints.folder)

    def run(self) -> list[dict[str, Any]]:
        checkpoint = self.checkpoints.load()
        if checkpoint is not None:
            self.state.unpack(*checkpoint)
        self.saved_at = time.monotonic()
        tensorboard = self.config.tensorboard and distributed.rank() == 0
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            stop_requested() as requested,
            closing(TrainLog(self.folder, self.state.step, tensorboard)) as log,
        ):
            # Gradients of subnets are strided views by design; torch says itself that this is not an error.
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
            with closing(self._batches()) as batches:
                while self.state.step < self.plan.total_steps:
                    self._train_epoch(batches, requested, log)
        if self.state.ema is not None:
            self.supernet.network.load_state_dict(self.state.ema.module.state_dict())
        return self.state.history

    def _train_epoch(self, batches: Iterator[Batch], requested: Callable[[], bool], log: TrainLog) -> None:
        """Train what is left of an epoch, validate and save; raises Stopped after a step if that is requested."""
        state, plan, wait = self.state, self.plan, LoaderWait(self.workers)
        epoch, done = divmod(state.step, plan.steps_per_epoch)
        if done == 0 and plan.starts_phase(epoch):
            state.start_phase(plan, epoch)
            if epoch == 0 and state.keeps_teacher and plan.starts_shrinking(epoch):
                _calibrate(self.training_step, self.data)  # initial weights may be those of a supernet
        for images, labels in wait.timed(islice(batches, plan.steps_per_epoch - done)):
            self.unread.append(self._train_step(images, labels, plan.epochs[epoch], requested()))
            state.step += 1
            ends_epoch = state.step % plan.steps_per_epoch == 0
            if not ends_epoch and state.step % self.read_every:
                continue
            loss, stop = self._read(log)
            message = f"epoch {epoch + 1}/{len(plan.epochs)}, loss {loss:.3f}{wait.advice()}"
            self.on_progress(state.step, plan.total_steps, message)
            if ends_epoch:
                self._validate(epoch, log)
            if ends_epoch or stop or time.monotonic() - self.saved_at > self.config.checkpoint_seconds:
                self._save()
            if stop and state.step < plan.total_steps:
                raise Stopped(
                    f"stopped after step {state.step} of {plan.total_steps}, saved in {self.checkpoints.folder}; the "
                    "same command resumes from there"
                )

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield the batches of all steps that are left."""

        def resolution(step: int) -> int:
            span = self.plan.epochs[step // self.plan.steps_per_epoch]
            return span.phase.resolution(Draw(span.space, step, self._seed_and_rng(step)[1], self.seed))

        return train_batches(
            self.data,
            self.augment,
            resolution=resolution,
            batch_size=self.config.batch_size,
            seed=self.seed,
            steps=range(self.state.step, self.plan.total_steps),
            part=self.part,
            workers=self.workers,
            device=distributed.device(),
        )

    def _seed_and_rng(self, step: int) -> tuple[int, np.random.Generator]:
        """Return a step's seed of dropout, another in each process, and its generator of archs."""
        rank, rng = distributed.rank(), np.random.default_rng((self.seed, step))
        seed = int(rng.integers(2**31)) + rank
        if self.config.different_archs and rank > 0:
            rng = np.random.default_rng((self.seed, step, rank))
        return seed, rng

    def _train_step(self, images: Tensor, labels: Tensor, span: PhaseSpan, stop_requested: bool) -> "_Step":
        """Take one optimizer step; nothing in it waits for the device."""
        step, device = self.state.step, distributed.device()
        seed, rng = self._seed_and_rng(step)
        torch.manual_seed(seed)
        losses_on_batch = partial(self.training_step.losses, images=images, labels=labels)
        draw = BatchDraw(span.space, step, rng, self.seed, partial(self._macs_m, span.space), losses_on_batch)
        archs = span.phase.archs(draw)
        if self.mixup is not None:
            with seeded(self.seed, step, distributed.rank()):
                images, labels = self.mixup(images, labels)
        self.schedule.set(step)
        self.supernet.zero_grad()
        weight = span.loss_weight(step, self.plan.steps_per_epoch)
        accumulate = self.training_step.accumulate_gradients
        losses = torch.stack(accumulate(archs, images, labels, weight, span.phase.images, self.buckets.start))
        stop = torch.tensor([float(stop_requested)], device=device)
        statistics = (buffer for _, buffer in shared_buffers(self.supernet.network) if buffer.is_floating_point())
        self.buckets.finish(chain(statistics, [losses, stop]))
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.supernet.network.parameters(), self.config.clip_grad_norm)
        self.state.optimizer.step()
        if self.state.ema is not None:
            self.state.ema.update(self.supernet.network, step=step)
        return _Step(step + 1, self.state.lr, archs, losses, stop)

    def _read(self, log: TrainLog) -> tuple[float, bool]:
        """Check and record the losses of the steps since the last call.

        Returns the loss of the last step's first arch, and whether any process was asked to stop.
        """
        space = self.supernet.family.space
        kinds = {space.largest: "largest", space.smallest: "smallest"}
        stop = any(bool(taken.stop > 0) for taken in self.unread)
        for taken in self.unread:
            losses = taken.losses.tolist()
            self._check_losses(taken, losses)
            named = [(kinds.get(arch, "others"), loss) for arch, loss in zip(taken.archs, losses, strict=True)]
            self.state.add_losses(named)
            log.write_step(taken.number, named, taken.lr)
        self.unread.clear()
        return losses[0], stop

    def _macs_m(self, space: SearchSpace, rows: Rows) -> NDArray[np.float64]:
        """Return multiply-accumulates of rows of a phase's space."""
        assert self.macs_m is not None  # see `train`
        whole = self.supernet.family.space
        return self.macs_m(rows if space is whole else whole.rows(map(space.decode, rows)))

    def _check_losses(self, taken: "_Step", losses: list[float]) -> None:
        for arch, loss in zip(taken.archs, losses, strict=True):
            if math.isfinite(loss) and loss <= self.config.max_loss:
                continue
            paths = self.checkpoints.paths()
            last = f"the last checkpoint is {paths[0]}" if paths else "there is no checkpoint yet"
            reason = f"above train.max_loss = {self.config.max_loss:g}" if math.isfinite(loss) else "not finite"
            raise TrainError(
                f"the loss {loss:.4g} is {reason} at step {taken.number} of {self.plan.total_steps}, for "
                f"{json.dumps(dict(arch))}; {last}; lower train.lr, set train.clip_grad_norm, or look for broken images"
            )

    def _validate(self, epoch: int, log: TrainLog) -> None:
        """Add the epoch's mean losses and the accuracies of some archs to the history."""
        state = self.state
        top1_percent, state.best_top1_percent = self.validation(state.best_top1_percent)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": state.step,
            "strategy": self.plan.epochs[epoch].phase.strategy,
            "lr": state.lr,
            "loss": {kind: total / number for kind, (total, number) in state.loss_sums.items()},
            **{f"{name}_top1_percent": value for name, value in top1_percent.items()},
        }
        state.history.append(record)
        state.loss_sums = {}
        if distributed.rank() == 0:
            log.write_epochs(state.history)

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if distributed.rank() == 0:
            self.checkpoints.save(self.state.step, *self.state.pack())


def _images_per_process(config: TrainConfig, n_train: int) -> int:
    """Return each process's share of a batch, refusing batches that cannot be shared."""
    batch_size = config.batch_size
    if n_train < batch_size:
        raise TrainError(f"train.batch_size = {batch_size} is more than the {n_train} training images; lower it")
    share, rest = divmod(batch_size, distributed.world_size())
    if rest or share < 2:
        raise TrainError(
            f"train.batch_size = {batch_size} cannot be shared by {distributed.world_size()} processes; give a "
            "multiple of their number, with at least 2 images for each"
        )
    parts = max((phase.parts for phase in config.phases if isinstance(phase, Spread)), default=1)
    if share < 2 * parts:
        raise TrainError(
            f"train.phases: parts = {parts} leaves less than 2 of a process's {share} images to each part; give at "
            f"most {share // 2} parts, or a larger train.batch_size"
        )
    return share


def _class_weights(config: TrainConfig, data: Data) -> Tensor | None:
    if config.class_weights == "none":
        return None
    if data.sampler == "balanced":
        raise TrainError(
            "train.class_weights = balanced and data.sampler = balanced would both even out the classes; choose one"
        )
    return balanced_weights(data.train.labels, len(data.labels))


def _mixup(augment: AugmentConfig, config: TrainConfig, num_classes: int, images_per_process: int) -> Mixup | None:
    if augment.mixup == 0 and augment.cutmix == 0:
        return None
    if images_per_process % 2:
        raise TrainError(f"mixup and cutmix require an even number of images per process, not {images_per_process}")
    return Mixup(augment.mixup, augment.cutmix, label_smoothing=config.label_smoothing, num_classes=num_classes)


def _calibrate(training_step: TrainingStep, data: Data) -> None:
    """Give the teacher BatchNorm statistics of its own: a supernet's file has those of all its subnets together."""
    assert training_step.teacher is not None
    resolution = training_step.teacher_resolution or max(training_step.supernet.family.resolutions)
    batches = eval_batches(data, data.train, resolution, limit=training_step.config.calibration_images)
    calibrate(training_step.teacher, batches)
