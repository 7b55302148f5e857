"""A teacher from elsewhere: a trained network of timm, of torchvision or of this project, to distill subnets from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ofa.core.config import Config
from ofa.core.errors import OfaError, TrainError, nearest, one_line
from ofa.core.tensors import load_state_dict, read_state_dict
from ofa.data.transforms import resize_center_crop
from ofa.space.arch import Value
from ofa.supernet.registry import create_family
from ofa.supernet.supernet import Supernet

_RESERVED = {"num_classes", "in_chans", "in_channels", "pretrained", "weights", "checkpoint_path"}


class TeacherConfig(Config):
    """A trained network that archs learn from. It is frozen, and sees images normalized as `data` normalizes them."""

    name: str
    """`timm:resnet18`, `torchvision:resnet18`, or a network of this project: `family:hybrid`, `family:own.py`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor, such as `img_size`, `width_mult`. Classes and channels come from the data."""
    weights: str
    """A safetensors file, or a checkpoint that `torch.save` wrote; `pretrained`: timm or torchvision fetch theirs."""
    arch: dict[str, Value] | None = None
    """`family:...`: the extracted subnet whose weights the file holds; null if it holds a supernet, such as another
    run's `supernet.safetensors`, whose largest network then teaches."""
    resolution: int | None = Field(None, ge=1, le=4096)
    """Image size in pixels that it sees; null for that of the batch."""

    @property
    def is_supernet(self) -> bool:
        """Whether the weights are a supernet's, whose largest network teaches."""
        return self.name.startswith("family:") and self.arch is None


def load_teacher(config: TeacherConfig, num_classes: int, in_channels: int, resolutions: Sequence[int]) -> nn.Module:
    """Create the teacher with its weights, on the CPU, frozen, in eval mode; global generators are left as they were.

    It is tried on images of the `resolutions` that batches have, in pixels. If it is a supernet, its BatchNorm
    statistics are those of all subnets together: re-estimate them with `ofa.calibrate` at the resolution that it sees.

    Raises:
        TrainError: unknown library or model, a model that refuses its options or the images, or has other classes.
        CheckpointError: the weights cannot be read or are another network's.
        FamilyError: the family is unknown or refuses its options.
        SpaceError: the arch is not of the family.
    """
    library, _, model = config.name.partition(":")
    if library not in _LIBRARIES:
        choices = ", ".join(f"{name}:MODEL" for name in _LIBRARIES)
        raise TrainError(f"teacher {config.name!r} is of no known library; choose from {choices}")
    for reserved in sorted(_RESERVED & set(config.options)):
        raise TrainError(
            f"teacher {config.name!r} does not take {reserved!r} as an option; classes and channels come from the "
            "data, weights from the key `weights`"
        )
    if config.arch is not None and library != "family":
        raise TrainError(f"teacher {config.name!r} has no archs; leave `arch` out, or give a `family:NAME`")
    with torch.random.fork_rng(devices=[]):
        try:
            teacher = _LIBRARIES[library](model, config, num_classes, in_channels)
        except OfaError:
            raise
        except Exception as error:  # the libraries raise all kinds
            raise TrainError(
                f"teacher {config.name!r} cannot be made with options {config.options} and weights "
                f"{config.weights!r}: {one_line(error)}; change these"
            ) from error
        if config.weights != "pretrained":
            path = Path(config.weights).expanduser()
            advice = f"weights of teacher {config.name!r} with these options and the data's classes and channels"
            load_state_dict(teacher, read_state_dict(path), path, advice)
        teacher.eval().requires_grad_(False)
        for resolution in resolutions:
            _try_out(teacher, config, (1, in_channels, resolution, resolution), num_classes)
    return teacher


@torch.no_grad()
def teacher_logits(teacher: nn.Module, images: Tensor, resolution: int | None = None) -> Tensor:
    """Return logits `[batch, classes]`, without gradient, of images `[batch, channels, h, w]`, resized on request."""
    logits: Tensor = teacher(images if resolution is None else resize_center_crop(images, resolution))
    return logits


def average_logits(network: nn.Module, images: Tensor, resolution: int | None = None) -> Tensor:
    """Return what `teacher_logits` does, of a network whose BatchNorm statistics fit no arch.

    It uses the batch's own statistics and leaves those of the network as they are. Layers that keep what they computed
    from weights in eval mode, such as LeViT's attention biases in timm, compute it anew.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.train().track_running_stats = False
    try:
        return teacher_logits(network, images, resolution)
    finally:
        for norm in norms:
            norm.eval().track_running_stats = True


def _from_timm(model: str, config: TeacherConfig, num_classes: int, in_channels: int) -> nn.Module:
    if not timm.is_model(model):
        raise _unknown(config.name, "timm", model, timm.list_models())
    if config.weights == "pretrained":  # with the classes it was trained on: timm would draw others at random
        return timm.create_model(model, pretrained=True, in_chans=in_channels, **config.options)
    return timm.create_model(model, num_classes=num_classes, in_chans=in_channels, **config.options)


def _from_torchvision(model: str, config: TeacherConfig, num_classes: int, in_channels: int) -> nn.Module:  # noqa: ARG001
    """Create one of torchvision's classifiers; pretrained GoogLeNet and Inception need `transform_input: true`."""
    models = torchvision.models.list_models(module=torchvision.models)
    if model not in models:
        raise _unknown(config.name, "torchvision", model, models)
    if config.weights != "pretrained":
        network: nn.Module = torchvision.models.get_model(model, num_classes=num_classes, **config.options)
        return network
    weights = torchvision.models.get_model_weights(model).DEFAULT
    network = torchvision.models.get_model(model, num_classes=len(weights.meta["categories"]), **config.options)
    # torchvision's own loading would let the file run code
    network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    return network


def _from_family(model: str, config: TeacherConfig, num_classes: int, in_channels: int) -> nn.Module:
    if config.weights == "pretrained":
        raise TrainError(f"teacher {config.name!r} has no pretrained weights; give the path of a file as `weights`")
    family = create_family(model, num_classes=num_classes, in_channels=in_channels, **config.options)
    return Supernet(family).network if config.arch is None else family.build(config.arch)


_LIBRARIES: dict[str, Callable[[str, TeacherConfig, int, int], nn.Module]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "family": _from_family,
}


def _unknown(name: str, library: str, model: str, models: list[str]) -> TrainError:
    return TrainError(f"teacher {name!r}: {library} has no classifier {model!r}; {nearest(model, models)}")


def _try_out(teacher: nn.Module, config: TeacherConfig, shape: tuple[int, ...], num_classes: int) -> None:
    """Run one black image of the batches' shape, so that a misfit is known before the training."""
    resolution = config.resolution or shape[-1]
    images = f"images of {shape[1]} channels and {resolution} pixels"
    try:
        logits = teacher_logits(teacher, torch.zeros(shape), resolution)
    except Exception as error:  # foreign networks raise all kinds
        raise TrainError(
            f"teacher {config.name!r} does not take {images}: {one_line(error)}; set its `resolution`, or give a model "
            "for such images"
        ) from error
    if logits.shape != (1, num_classes):
        raise TrainError(
            f"teacher {config.name!r} gives {tuple(logits.shape[1:])} logits for {images}, the data has {num_classes} "
            "classes; give a teacher that was trained on these"
        )
