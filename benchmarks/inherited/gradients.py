"""How gradients of archs of different sizes agree, on the same images and on others."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ofa.space.arch import Arch
from ofa.train.step import TrainingStep


def gradient_cosines(
    step: TrainingStep, archs: list[Arch], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, list[list[float]]]:
    """Return the mean cosines `[archs, archs]` of archs' gradients on the `same` batch, and on two `other` ones."""
    of_batches = torch.stack([torch.stack([_direction(step, arch, *batch) for arch in archs]) for batch in batches])
    n = len(of_batches)
    same = torch.einsum("nap,nbp->ab", of_batches, of_batches)
    total = of_batches.sum(0)
    other = total @ total.T - same
    return {"same": (same / n).tolist(), "other": (other / (n * (n - 1))).tolist()}


def _direction(step: TrainingStep, arch: Arch, images: Tensor, labels: Tensor) -> Tensor:
    step.supernet.zero_grad()
    step.accumulate_gradients([arch], images, labels)
    gradient = torch.cat([p.grad.flatten() for p in step.supernet.parameters() if p.grad is not None]).double()
    return nn.functional.normalize(gradient, dim=0)
