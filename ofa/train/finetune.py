"""Finetuning: some epochs for one subnet alone, from the weights that it inherited (arXiv 1908.09791, 4.1)."""

from copy import deepcopy
from pathlib import Path

from pydantic import Field
from torch import nn

from ofa.core.config import Config
from ofa.data.config import AugmentConfig
from ofa.data.dataset import Data
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.family import Family
from ofa.supernet.supernet import Supernet
from ofa.train.config import OptimizerName, TrainConfig
from ofa.train.strategies import Draw, Full
from ofa.train.teacher import TeacherConfig
from ofa.train.trainer import Progress, train


class FinetuneConfig(Config):
    """How levels are finetuned; all else is as in `train`.

    The optimizer is not that of `train`, as its learning rate says nothing of another's. Muon, whose steps are equally
    long in all directions, gained more than SGD with any learning rate (`docs/results/training_notes.md`).
    """

    epochs: int = Field(ge=1, le=100_000)
    """Passes over the training images, for each level."""
    lr: float = Field(0.005, gt=0)
    """Peak learning rate; a cosine to `train.min_lr` follows."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs over which the learning rate rises linearly."""
    optimizer: OptimizerName = "muon"
    """As `train.optimizer`, to which `lr` and `weight_decay` belong."""
    weight_decay: float = Field(0.1, ge=0)
    """Not applied to biases and the scales of normalization layers."""


class _Alone(Full):
    """Trains the one network, on images that are loaded at the size which the teacher sees."""

    loaded_resolution: int

    def resolution(self, draw: Draw) -> int:  # noqa: ARG002
        """Return that size in pixels."""
        return self.loaded_resolution


def finetune(
    network: nn.Module,
    family: Family,
    resolution: int,
    data: Data,
    config: FinetuneConfig,
    *,
    teacher: Path,
    like: TrainConfig,
    folder: Path,
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  # frozen
    workers: int = 0,
    seed: int = 0,
    on_progress: Progress = lambda done, total, message: None,
) -> nn.Module:
    """Train an extracted subnet on, with the labels and the largest network of its supernet as teachers.

    It is the training of a supernet of one network, so it resumes from its checkpoints, and the same seed gives the
    same weights. BatchNorm statistics are the training's own: re-estimate them with `ofa.calibrate`.

    Args:
        network: the subnet; it is not changed.
        family: of the supernet, made by `create_family`.
        resolution: image size of the subnet in pixels.
        data: `train` is learned from; `validation` is evaluated for the log.
        config: epochs, optimizer and learning rate.
        teacher: the supernet's file, whose largest network teaches at its own resolution.
        like: how the supernet was trained: batch size, losses, moving average.
        folder: gets the checkpoints and `train.jsonl`.
        augment: augmentation of the training images.
        workers: processes that load images; 0 loads in this one.
        seed: seed of batches, augmentation and dropout.
        on_progress: called with steps done, steps in all and a message.

    Returns:
        The finetuned copy.

    Raises:
        TrainError, CheckpointError, Stopped: see `ofa.train`.
    """
    assert family.origin is not None
    alone = Family.from_builder(
        SearchSpace([Choice("resolution", (resolution,))], single_arch=True),
        lambda _: deepcopy(network),
        name=f"a subnet of {family.name}",
        in_channels=family.in_channels,
        resolution_multiple=family.resolution_multiple,
    )
    loaded_resolution = max(family.resolutions)
    of_data = ("num_classes", "in_channels")
    of_teacher = TeacherConfig(
        name=f"family:{family.origin.name}",
        options={name: value for name, value in family.origin.options.items() if name not in of_data},
        weights=str(teacher),
        resolution=loaded_resolution,
    )
    phase = _Alone(strategy="full", epochs=config.epochs, loaded_resolution=loaded_resolution)
    training = like.model_copy(
        update={
            "phases": [phase],
            "lr": config.lr,
            "warmup_epochs": config.warmup_epochs,
            "optimizer": config.optimizer,
            "weight_decay": config.weight_decay,
            "teacher": of_teacher,
            "initial_weights": None,
            "validated_archs": 0,
        }
    )
    supernet = Supernet(alone)
    train(
        supernet,
        data,
        training,
        folder=folder,
        augment=augment,
        workers=workers,
        seed=seed,
        on_progress=on_progress,
    )
    return supernet.network
