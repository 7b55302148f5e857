"""What one training step learns: the losses of its archs on a batch, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ofa.data.transforms import resize_center_crop
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet
from ofa.train.config import TrainConfig
from ofa.train.losses import distillation_loss, label_loss
from ofa.train.teacher import TeacherConfig, load_teacher, teacher_logits


class Learner:
    """Runs archs of a supernet on batches and adds up their gradients there.

    Args:
        supernet: on the device where it is trained.
        config: of the training.

    Raises:
        TrainError, CheckpointError: the teacher cannot be loaded.
    """

    def __init__(self, supernet: Supernet, config: TrainConfig) -> None:
        self.supernet, self.config = supernet, config
        self.device = next(supernet.parameters()).device
        self.teacher: nn.Module | None = None
        self.teacher_resolution: int | None = None
        if isinstance(config.teacher, TeacherConfig):
            num_classes = len(supernet.network.get_parameter(supernet.classifier_names[-1]))
            self.teacher = load_teacher(
                config.teacher, num_classes, supernet.family.in_channels, max(supernet.family.resolutions)
            ).to(self.device)
            self.teacher_resolution = config.teacher.resolution
        self.label_loss = label_loss(config.label_smoothing)
        self.distillation_loss = distillation_loss(config.distill, config.label_smoothing)
        self._drops = any(
            getattr(module, "p", 0) > 0 or isinstance(module, DropPath) for module in supernet.network.modules()
        )
        self._compiled: dict[Arch, Any] = {}

    def freeze_teacher(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Makes the largest network, as it is or with these tensors, the teacher from now on."""
        self.teacher = self.supernet.extract(self.supernet.family.space.largest)
        if tensors is not None:
            self.teacher.load_state_dict({name: tensors[name] for name in self.teacher.state_dict()})
        self.teacher.eval().requires_grad_(False)

    def learn(self, archs: list[Arch], images: Tensor, labels: Tensor, weight: float = 1.0) -> list[Tensor]:
        """Adds the gradients of the archs' losses to the supernet's.

        Args:
            archs: those that come after the largest can learn from it.
            images: `[batch, channels, h, w]`, scaled to each arch's resolution here.
            labels: `[batch]`, or probabilities `[batch, classes]`.
            weight: of the losses of all archs but the largest.

        Returns:
            The loss of each arch, not weighted.
        """
        self.supernet.train()
        largest = self.supernet.family.space.largest
        answers = None
        if self.teacher is not None:
            with self._autocast():
                answers = teacher_logits(self.teacher, images, self.teacher_resolution).float()
        losses = []
        for arch in archs:
            logits = self._logits(arch, images, dropped=answers is None)
            if answers is None:
                loss = self.label_loss(logits, labels)
            else:
                loss = self.distillation_loss(logits, answers, labels)
            (loss if arch == largest else weight * loss).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            losses.append(loss.detach())
            if arch == largest and self.teacher is None and self.config.teacher == "largest":
                answers = logits.detach()
        return losses

    @torch.no_grad()
    def losses(self, archs: Iterable[Arch], images: Tensor, labels: Tensor) -> list[float]:
        """The losses of archs against the labels; nothing is learned."""
        self.supernet.train()
        return [float(self.label_loss(self._logits(arch, images, dropped=False), labels)) for arch in archs]

    def _logits(self, arch: Arch, images: Tensor, dropped: bool) -> Tensor:
        scaled = resize_center_crop(images, int(arch["resolution"]))
        if self.config.channels_last:
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        network = self._network(arch)
        drops = regularized(network, dropped, self.config.drop_path) if self._drops else nullcontext()
        with self._autocast(), drops:
            logits: Tensor = network(scaled)
        return logits.float()

    def _network(self, arch: Arch) -> Any:
        space = self.supernet.family.space
        if not self.config.compile or arch not in (space.largest, space.smallest):
            return self.supernet.subnet(arch)
        if arch not in self._compiled:
            self._compiled[arch] = torch.compile(self.supernet.subnet(arch))
        return self._compiled[arch]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


@contextmanager
def regularized(network: nn.Module, on: bool, drop_path: float) -> Iterator[None]:
    """Dropout and stochastic depth of a network in training, switched on or off for a forward pass.

    The chance to skip a branch grows from 0 at the network's first block to `drop_path` at its last, so it follows the
    depth of the arch.

    Args:
        network: a subnet, just put together.
        on: whether anything is dropped.
        drop_path: chance of the last block; 0 leaves the network's own chances.
    """
    blocks: dict[str, list[DropPath]] = {}
    drops = [(name, module) for name, module in network.named_modules() if isinstance(module, DropPath | _DropoutNd)]
    before = [
        (module, module.training, module.drop_prob if isinstance(module, DropPath) else 0.0) for _, module in drops
    ]
    for name, module in drops:
        module.train(on)
        if isinstance(module, DropPath):
            blocks.setdefault(name.rpartition(".")[0], []).append(module)
    if drop_path > 0:
        for i, modules in enumerate(blocks.values()):
            for module in modules:
                module.drop_prob = drop_path * i / max(len(blocks) - 1, 1)
    try:
        yield
    finally:
        for module, training, chance in before:
            module.train(training)
            if isinstance(module, DropPath):
                module.drop_prob = chance
