"""Sharing rules of single families: learned kernel transforms, and tables by position."""

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from ofa.core.errors import FamilyError
from ofa.supernet.rules import Kernel, Rule, Shape, nested_view


@dataclass(frozen=True)
class KernelTransform(Kernel):
    """Compute a smaller depthwise kernel as the larger one's center times a learned matrix.

    This is once-for-all's elastic kernel (arXiv 1908.09791, section 3.3). The largest network's convolution holds one
    matrix per step, such as `weight_7to5` `[25, 25]` and `weight_5to3` `[9, 9]`. All channels share it; it starts as
    the identity. `kernels` are odd sizes, ascending.
    """

    kernels: tuple[int, ...]

    def extras(self, full: Tensor, name: str) -> dict[str, Tensor]:
        """See `Rule.extras`; raises FamilyError unless the largest network's kernel is the last of `kernels`."""
        if full.shape[-1] != self.kernels[-1]:
            raise FamilyError(
                f"{name}: the largest kernel is {full.shape[-1]}, but its transform is for kernels {self.kernels}; "
                "give the rule a narrower pattern or other kernels"
            )
        return {f"_{large}to{small}": torch.eye(small * small) for small, large in pairwise(self.kernels)}

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`. A smaller kernel views the second largest, which the first matrix is applied to."""
        if shape[-1] not in self.kernels:
            raise FamilyError(f"{name}: kernel {shape[-1]} is not allowed; its transform is for {self.kernels}")
        size = self.kernels[-1] if shape[-1] == self.kernels[-1] else self.kernels[-2]
        return super().view(full, (*shape[:2], size, size), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        steps = [
            (small, owner.get_parameter(f"{leaf}_{large}to{small}"))
            for small, large in pairwise(self.kernels)
            if small >= shape[-1]
        ]
        return _Transform(steps[::-1]) if steps else None


class _Transform(nn.Module):
    def __init__(self, steps: list[tuple[int, nn.Parameter]]) -> None:
        super().__init__()
        self.sizes = [size for size, _ in steps]
        self.matrices = nn.ParameterList(matrix for _, matrix in steps)

    def forward(self, weight: Tensor) -> Tensor:
        # Keep a depthwise weight in channels-last memory: otherwise a training step is 15% slower.
        channels_last = weight.stride(1) == 1 == weight.shape[1]
        for size, matrix in zip(self.sizes, self.matrices, strict=True):
            edge = (weight.shape[-1] - size) // 2
            center = weight[..., edge : edge + size, edge : edge + size]
            weight = nn.functional.linear(center.flatten(-2), matrix).view(*weight.shape[:-2], size, size)
        return weight.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2) if channels_last else weight


@dataclass(frozen=True)
class Center(Rule):
    """Share the center of the first `dims` dimensions, such as relative positions, and leading slices of the others."""

    dims: int = 2

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        return nested_view(full, shape, name, spatial=range(self.dims))


@dataclass(frozen=True)
class _GridTable(Rule):
    """A table in which one dimension is a flattened square grid and `extra` other entries; others are leading slices.

    The view keeps that dimension whole; `resize` computes the smaller one in every forward pass.
    """

    extra: int = 0
    dim: ClassVar[int]
    enlarges: ClassVar[bool] = False  # whether a smaller network may have the larger grid

    def resize(self, table: Tensor, full: int, side: int) -> Tensor:
        """Return a table `[..., full^2 + extra, ...]` as one of `side^2 + extra` entries."""
        raise NotImplementedError

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        if not self.enlarges:
            nested_view(full, shape, name)  # raises where the shapes do not nest
        grids = [sizes[self.dim] - self.extra for sizes in (shape, full.shape)]
        if any(isqrt(max(grid, 0)) ** 2 != grid for grid in grids):
            raise FamilyError(
                f"{name}: shapes {shape} and {tuple(full.shape)} do not both hold a square grid and {self.extra} "
                f"other entries along dimension {self.dim}; give the parameter another rule"
            )
        return nested_view(full, (*shape[: self.dim], full.shape[self.dim], *shape[self.dim + 1 :]), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        full, size = owner.get_parameter(leaf).shape[self.dim], shape[self.dim]
        return None if size == full else _Resize(self, isqrt(full - self.extra), isqrt(size - self.extra))


class _Resize(nn.Module):
    def __init__(self, rule: _GridTable, full: int, side: int) -> None:
        super().__init__()
        self.rule, self.full, self.side = rule, full, side

    def forward(self, table: Tensor) -> Tensor:
        return self.rule.resize(table, self.full, self.side)


class CenterTable(_GridTable):
    """Share the center of a flattened table of relative positions `[(2 * window - 1)^2 + extra, heads]`.

    The extra rows, such as those of a class token, come last and are kept.
    """

    dim = 0

    def resize(self, table: Tensor, full: int, side: int) -> Tensor:
        """See `_GridTable.resize`."""
        edge = (full - side) // 2
        center = table[: full**2].view(full, full, -1)[edge : edge + side, edge : edge + side]
        return torch.cat([center.flatten(0, 1), table[full**2 :]])


class CornerTable(_GridTable):
    """Share the smaller distances of a table `[heads, grid^2]` by absolute distances down and across."""

    dim = 1

    def resize(self, table: Tensor, full: int, side: int) -> Tensor:
        """See `_GridTable.resize`."""
        return table.view(-1, full, full)[:, :side, :side].flatten(1)


class ResampledPositions(_GridTable):
    """Resample position embeddings `[1, extra + grid^2, channels]` to another grid by cubic interpolation.

    The extra tokens, such as a class token, come first and are kept.
    """

    dim = 1
    enlarges = True

    def resize(self, table: Tensor, full: int, side: int) -> Tensor:
        """See `_GridTable.resize`."""
        image = table[:, self.extra :].transpose(1, 2).reshape(len(table), -1, full, full)
        image = nn.functional.interpolate(image, (side, side), mode="bicubic", antialias=side < full)
        return torch.cat([table[:, : self.extra], image.flatten(2).transpose(1, 2)], dim=1)
