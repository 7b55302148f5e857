"""One training step: the losses of its archs on a batch, and their gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ofa.core import distributed
from ofa.data.transforms import resize_center_crop
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet
from ofa.train.config import TrainConfig
from ofa.train.losses import distillation_loss, label_loss
from ofa.train.teacher import TeacherConfig, average_logits, load_teacher, teacher_logits


class TrainingStep:
    """Runs archs of a supernet on a batch, on the supernet's device, and accumulates their gradients in the supernet.

    The number of classes in the data is for a teacher from elsewhere. Class weights `[classes]` are for `label_loss`.

    Raises:
        TrainError, CheckpointError: the teacher cannot be loaded.
    """

    def __init__(
        self, supernet: Supernet, config: TrainConfig, num_classes: int, class_weights: Tensor | None = None
    ) -> None:
        self.supernet, self.config = supernet, config
        self.device = next(supernet.parameters()).device
        self.teacher: nn.Module | None = None
        self.teacher_resolution: int | None = None
        self.average: nn.Module | None = None
        if isinstance(config.teacher, TeacherConfig):
            family = supernet.family
            ends = (max, min) if any(phase.loads_smaller for phase in config.phases) else (max,)
            resolutions = [end(family.resolutions) for end in ends]
            teacher = load_teacher(config.teacher, num_classes, family.in_channels, resolutions)
            self.teacher, self.teacher_resolution = teacher.to(self.device), config.teacher.resolution
        elif config.teacher in ("full", "average"):
            self.teacher_resolution = _only_resolution(supernet)
        weights = None if class_weights is None else class_weights.to(self.device)
        self.label_loss = label_loss(config.label_smoothing, weights)
        self.distillation_loss = distillation_loss(config.distill, self.label_loss)
        modules = supernet.network.modules()
        self._has_dropout = any(getattr(module, "p", 0) > 0 or isinstance(module, DropPath) for module in modules)
        self._compiled: dict[Arch, Any] = {}

    def freeze_teacher(self, tensors: Mapping[str, Tensor]) -> None:
        """Make the largest network with these tensors the teacher from now on."""
        self.teacher = self.supernet.extract(self.supernet.family.space.largest)
        self.teacher.load_state_dict({name: tensors[name] for name in self.teacher.state_dict()})
        self.teacher.eval().requires_grad_(False)

    def accumulate_gradients(
        self,
        archs: list[Arch],
        images: Tensor,
        labels: Tensor,
        weight: float = 1.0,
        part: Callable[[int], slice] = lambda i: slice(None),
        before_last: Callable[[nn.Module], None] = lambda subnet: None,
    ) -> list[Tensor]:
        """Add the gradients of the archs' losses to the supernet's.

        Args:
            archs: those that come after the largest can learn from it.
            images: `[batch, channels, h, w]`, resized to each arch's resolution here.
            labels: classes `[batch]`, or probabilities `[batch, classes]`.
            weight: weight of the losses of all archs but the largest.
            part: which images the arch at a position of `archs` is trained on; its loss is weighted by their share.
            before_last: called with the last arch's subnet before its backward pass.

        Returns:
            The unweighted loss of each arch.
        """
        self.supernet.train()
        largest = self.supernet.family.space.largest
        targets = None  # the teacher's logits
        if self.teacher is not None:
            with self._autocast():
                targets = teacher_logits(self.teacher, images, self.teacher_resolution).float()
        elif self.average is not None:
            with self._autocast():
                targets = average_logits(self.average, self._laid_out(images), self.teacher_resolution).float()
        losses = []
        for i, arch in enumerate(archs):
            own = part(i)
            network = self._network(arch)
            logits = self._logits(network, images[own], int(arch["resolution"]), dropout=targets is None)
            if targets is None:
                loss = self.label_loss(logits, labels[own])
            else:
                loss = self.distillation_loss(logits, targets[own], labels[own])
            share = len(logits) / len(images)
            if i == len(archs) - 1:
                before_last(network)
            (share * (loss if arch == largest else weight * loss)).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            losses.append(loss.detach())
            if arch == largest and self.teacher is None and self.config.teacher == "largest":
                targets = logits.detach()
        return losses

    @torch.no_grad()
    def losses(self, archs: Iterable[Arch], images: Tensor, labels: Tensor) -> list[float]:
        """Return the losses of archs against the labels, without gradients.

        Where all processes train the same archs, these are the means over all of them, so that all decide alike.
        """
        self.supernet.train()
        logits = (self._logits(self._network(arch), images, int(arch["resolution"]), dropout=False) for arch in archs)
        losses = torch.stack([self.label_loss(of_arch, labels) for of_arch in logits])
        return (losses if self.config.different_archs else distributed.mean(losses)).tolist()

    def _logits(self, network: nn.Module, images: Tensor, resolution: int, dropout: bool) -> Tensor:
        resized = self._laid_out(resize_center_crop(images, resolution))
        mode = dropout_mode(network, dropout, self.config.drop_path) if self._has_dropout else nullcontext()
        with self._autocast(), mode:
            logits: Tensor = network(resized)
        return logits.float()

    def _laid_out(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def _network(self, arch: Arch) -> Any:
        space = self.supernet.family.space
        if not self.config.compile or arch not in (space.largest, space.smallest):
            return self.supernet.subnet(arch)
        if arch not in self._compiled:
            self._compiled[arch] = torch.compile(self.supernet.subnet(arch))
        return self._compiled[arch]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


@torch.no_grad()
def _only_resolution(supernet: Supernet) -> int | None:
    """Return the largest resolution if the largest network takes images of no other, as some transformers do."""
    family = supernet.family
    smallest, largest = min(family.resolutions), max(family.resolutions)
    if smallest == largest:
        return None
    images = torch.zeros(1, family.in_channels, smallest, smallest, device=next(supernet.parameters()).device)
    try:
        supernet.extract(family.space.largest).eval()(images)
    except Exception:  # foreign networks raise all kinds
        return largest
    return None


@contextmanager
def dropout_mode(network: nn.Module, enabled: bool, drop_path: float) -> Iterator[None]:
    """Switch dropout and stochastic depth of a network in training on or off for a forward pass, and back again.

    The probability to skip a residual branch rises from 0 at the network's first block to `drop_path` at its last, so
    it follows the depth of the arch. With a `drop_path` of 0 the network's own probabilities are used.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, DropPath | _DropoutNd)}
    paths = {name: layer for name, layer in layers.items() if isinstance(layer, DropPath)}
    modes, probabilities = [layer.training for layer in layers.values()], [path.drop_prob for path in paths.values()]
    for layer in layers.values():
        layer.train(enabled)
    if drop_path > 0:
        blocks = list(dict.fromkeys(name.rpartition(".")[0] for name in paths))
        for name, path in paths.items():
            path.drop_prob = drop_path * blocks.index(name.rpartition(".")[0]) / max(len(blocks) - 1, 1)
    try:
        yield
    finally:
        for layer, training in zip(layers.values(), modes, strict=True):
            layer.train(training)
        for path, probability in zip(paths.values(), probabilities, strict=True):
            path.drop_prob = probability
