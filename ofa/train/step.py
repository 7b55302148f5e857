"""One training step: the losses of its archs on a batch, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ofa.data.transforms import resize_center_crop
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet
from ofa.train.config import TrainConfig
from ofa.train.dropout import dropout_mode, has_dropout
from ofa.train.losses import distillation_loss, label_loss
from ofa.train.teacher import TeacherConfig, load_teacher, teacher_logits


class TrainingStep:
    """Runs archs of a supernet on a batch and accumulates their gradients in the supernet.

    Args:
        supernet: on the device where it is trained.
        config: settings of the training.
        num_classes: number of classes in the data, for a teacher from elsewhere.

    Raises:
        TrainError, CheckpointError: the teacher cannot be loaded.
    """

    def __init__(self, supernet: Supernet, config: TrainConfig, num_classes: int) -> None:
        self.supernet, self.config = supernet, config
        self.device = next(supernet.parameters()).device
        self.teacher: nn.Module | None = None
        self.teacher_resolution: int | None = None
        if isinstance(config.teacher, TeacherConfig):
            family = supernet.family
            teacher = load_teacher(config.teacher, num_classes, family.in_channels, max(family.resolutions))
            self.teacher, self.teacher_resolution = teacher.to(self.device), config.teacher.resolution
        self.label_loss = label_loss(config.label_smoothing)
        self.distillation_loss = distillation_loss(config.distill, config.label_smoothing)
        self._has_dropout = has_dropout(supernet.network)
        self._compiled: dict[Arch, Any] = {}

    def freeze_teacher(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Make the largest network the teacher from now on, as it is or with the given tensors."""
        self.teacher = self.supernet.extract(self.supernet.family.space.largest)
        if tensors is not None:
            self.teacher.load_state_dict({name: tensors[name] for name in self.teacher.state_dict()})
        self.teacher.eval().requires_grad_(False)

    def accumulate_gradients(
        self, archs: list[Arch], images: Tensor, labels: Tensor, weight: float = 1.0
    ) -> list[Tensor]:
        """Add the gradients of the archs' losses to the supernet's.

        Args:
            archs: those that come after the largest can learn from it.
            images: `[batch, channels, h, w]`, resized to each arch's resolution here.
            labels: classes `[batch]`, or probabilities `[batch, classes]`.
            weight: weight of the losses of all archs but the largest.

        Returns:
            The unweighted loss of each arch.
        """
        self.supernet.train()
        largest = self.supernet.family.space.largest
        targets = None  # the teacher's logits
        if self.teacher is not None:
            with self._autocast():
                targets = teacher_logits(self.teacher, images, self.teacher_resolution).float()
        losses = []
        for arch in archs:
            logits = self._logits(arch, images, dropout=targets is None)
            if targets is None:
                loss = self.label_loss(logits, labels)
            else:
                loss = self.distillation_loss(logits, targets, labels)
            (loss if arch == largest else weight * loss).backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            losses.append(loss.detach())
            if arch == largest and self.teacher is None and self.config.teacher == "largest":
                targets = logits.detach()
        return losses

    @torch.no_grad()
    def losses(self, archs: Iterable[Arch], images: Tensor, labels: Tensor) -> list[float]:
        """Return the losses of archs against the labels, without gradients."""
        self.supernet.train()
        return [float(self.label_loss(self._logits(arch, images, dropout=False), labels)) for arch in archs]

    def _logits(self, arch: Arch, images: Tensor, dropout: bool) -> Tensor:
        resized = resize_center_crop(images, int(arch["resolution"]))
        if self.config.channels_last:
            resized = resized.contiguous(memory_format=torch.channels_last)
        network = self._network(arch)
        mode = dropout_mode(network, dropout, self.config.drop_path) if self._has_dropout else nullcontext()
        with self._autocast(), mode:
            logits: Tensor = network(resized)
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
