"""How a small network's parameters sit inside the largest network's.

By default a parameter is a *view*: leading slices of the largest one's; of a convolution's weight, leading slices of
output and input channels and the center of the kernel (OFA, section 3.3, arXiv 1908.09791). A `Rule` says otherwise
where needed: rules that cannot be views are torch parametrizations of a view, so that gradients still
reach the shared one. BatchNorm's buffers are views as well; other buffers are each module's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import torch
from torch import Tensor, nn

from ofa.core.errors import FamilyError

Shape = tuple[int, ...]


class Rule:
    """How a parameter of a smaller network shares the largest network's. This one: leading slices of all dimensions."""

    def extras(self, full: Tensor, name: str) -> dict[str, Tensor]:  # noqa: ARG002  # for rules that have some
        """First values of parameters that the largest network holds beside `full`, by what follows its name."""
        return {}

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """The part of `full` that a parameter of the given shape shares, as a view of it.

        Args:
            full: the largest network's parameter, or its gradient.
            shape: of the smaller network's parameter.
            name: of the parameter, for the error.

        Raises:
            FamilyError: the shapes do not nest.
        """
        return nested_view(full, shape, name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:  # noqa: ARG002  # the same
        """What makes the parameter out of the view in every forward pass; None: the view is the parameter.

        Args:
            shape: of the smaller network's parameter.
            owner: the largest network's module that holds the parameter, and the extras beside it.
            leaf: the parameter's name in that module.
        """
        return None


class Kernel(Rule):
    """Convolution weights: leading slices of channels, the center of the kernel."""

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        return nested_view(full, shape, name, spatial=range(2, full.dim()))


@dataclass(frozen=True)
class Center(Rule):
    """The center of the first `dims` dimensions, such as relative positions; leading slices of others."""

    dims: int = 2

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        return nested_view(full, shape, name, spatial=range(self.dims))


@dataclass(frozen=True)
class KernelTransform(Kernel):
    """A smaller depthwise kernel is the larger one's center times a learned matrix (OFA, section 3.3).

    The largest network's convolution holds one matrix per step, `weight_7to5` `[25, 25]` and `weight_5to3` `[9, 9]`,
    shared by all channels and the identity at first.

    Attributes:
        kernels: the kernel sizes, ascending, odd.
    """

    kernels: tuple[int, ...]

    def extras(self, full: Tensor, name: str) -> dict[str, Tensor]:
        """See `Rule.extras`.

        Raises:
            FamilyError: the largest kernel is not the largest of `kernels`.
        """
        if full.shape[-1] != self.kernels[-1]:
            raise FamilyError(
                f"{name}: a kernel transform of {self.kernels} wants a largest kernel of {self.kernels[-1]}, "
                f"this one has {full.shape[-1]}; give the rule a narrower pattern"
            )
        return {f"_{a}to{b}": torch.eye(b * b) for b, a in pairwise(self.kernels)}

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`. Down to the second largest kernel, which the first matrix takes."""
        size = self.kernels[-1] if shape[-1] == self.kernels[-1] else self.kernels[-2]
        if shape[-1] not in self.kernels:
            raise FamilyError(f"{name}: kernel {shape[-1]} is not one of its transform's, {self.kernels}")
        return super().view(full, (*shape[:2], size, size), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        steps = [(b, owner.get_parameter(f"{leaf}_{a}to{b}")) for b, a in pairwise(self.kernels) if b >= shape[-1]]
        return _Transform(steps[::-1]) if steps else None


class _Transform(nn.Module):
    def __init__(self, steps: list[tuple[int, nn.Parameter]]) -> None:
        super().__init__()
        self.sizes = [size for size, _ in steps]
        self.matrices = nn.ParameterList(matrix for _, matrix in steps)

    def forward(self, weight: Tensor) -> Tensor:
        last = weight.stride(1) == 1 == weight.shape[1]  # depthwise, channels last: keep it, or the step is 15% slower
        for size, matrix in zip(self.sizes, self.matrices, strict=True):
            edge = (weight.shape[-1] - size) // 2
            center = weight[..., edge : edge + size, edge : edge + size]
            weight = nn.functional.linear(center.flatten(-2), matrix).view(*weight.shape[:-2], size, size)
        return weight.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2) if last else weight


@dataclass(frozen=True)
class Grouped(Rule):
    """Rows in equal groups one after another: of each group the first ones, of kernels the center.

    For fused q, k, v `[3 * width, ...]`, and the default for convolutions whose number of groups is fixed.

    Attributes:
        groups: how many groups, the same in every network.
    """

    groups: int = 3

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`. With the groups as a dimension of their own, as slices of each are no slice of all."""
        if tuple(full.shape) == shape:
            return full
        if full.shape[0] % self.groups or shape[0] % self.groups:
            raise FamilyError(
                f"{name}: shape {shape} in the largest network's {tuple(full.shape)} is not of {self.groups} groups; "
                "give another rule for it"
            )
        whole = full.view(self.groups, -1, *full.shape[1:])
        part = (self.groups, shape[0] // self.groups, *shape[1:])
        return nested_view(whole, part, name, spatial=range(3, whole.dim()))

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        return None if tuple(owner.get_parameter(leaf).shape) == shape else _Reshape(shape)


class _Reshape(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, view: Tensor) -> Tensor:
        return view.reshape(self.shape)


@dataclass(frozen=True)
class CenterTable(Rule):
    """A relative position table `[(2 * window - 1)^2 + extra, heads]`: the offsets in the middle, the first heads.

    Attributes:
        extra: rows after the offsets', such as those of a class token; they are kept.
    """

    extra: int = 0

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        nested_view(full, shape, name)  # for its error
        _check_squares(full, shape, name, dim=0, others=self.extra)
        return nested_view(full, (full.shape[0], *shape[1:]), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        rows = owner.get_parameter(leaf).shape[0]
        return None if rows == shape[0] else _CenterRows(isqrt(rows - self.extra), isqrt(shape[0] - self.extra))


class _CenterRows(nn.Module):
    def __init__(self, full: int, side: int) -> None:
        super().__init__()
        self.full, self.center = full, slice((full - side) // 2, (full + side) // 2)

    def forward(self, table: Tensor) -> Tensor:
        offsets = table[: self.full**2].view(self.full, self.full, -1)[self.center, self.center]
        return torch.cat([offsets.flatten(0, 1), table[self.full**2 :]])


class CornerTable(Rule):
    """A table `[heads, grid^2]` by absolute distances down and across: the smaller distances, the first heads."""

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        nested_view(full, shape, name)  # for its error
        _check_squares(full, shape, name, dim=1)
        return nested_view(full, (shape[0], *full.shape[1:]), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        columns = owner.get_parameter(leaf).shape[1]
        return None if columns == shape[1] else _CornerColumns(isqrt(columns), isqrt(shape[1]))


class _CornerColumns(nn.Module):
    def __init__(self, full: int, side: int) -> None:
        super().__init__()
        self.full, self.side = full, side

    def forward(self, table: Tensor) -> Tensor:
        grid = table.view(-1, self.full, self.full)
        return grid[:, : self.side, : self.side].flatten(1)


@dataclass(frozen=True)
class ResampledPositions(Rule):
    """Position embeddings `[1, prefix + grid^2, channels]`: resampled to another grid, the first channels.

    Attributes:
        prefix: tokens before the grid's, such as a class token; they are kept.
    """

    prefix: int = 0

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        _check_squares(full, shape, name, dim=1, others=self.prefix)
        return nested_view(full, (shape[0], full.shape[1], *shape[2:]), name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        same = shape[1] == owner.get_parameter(leaf).shape[1]
        return None if same else _Resample(self.prefix, isqrt(shape[1] - self.prefix))


class _Resample(nn.Module):
    def __init__(self, prefix: int, side: int) -> None:
        super().__init__()
        self.prefix, self.side = prefix, side

    def forward(self, positions: Tensor) -> Tensor:
        grid = positions[:, self.prefix :]
        side = isqrt(grid.shape[1])
        image = grid.transpose(1, 2).reshape(len(grid), -1, side, side)
        image = nn.functional.interpolate(image, (self.side, self.side), mode="bicubic", antialias=self.side < side)
        return torch.cat([positions[:, : self.prefix], image.flatten(2).transpose(1, 2)], dim=1)


def _check_squares(full: Tensor, shape: Shape, name: str, dim: int, others: int = 0) -> None:
    """Refuses sizes along a dimension that are not a square grid and `others`."""
    if any(isqrt(max(size - others, 0)) ** 2 != size - others for size in (shape[dim], full.shape[dim])):
        raise FamilyError(
            f"{name}: shapes {shape} and {tuple(full.shape)} do not have {others} entries and a square grid each along "
            f"dimension {dim}; give another rule for it"
        )


def nested_view(full: Tensor, shape: Shape, name: str, spatial: range = range(0)) -> Tensor:
    """The view of `full` that has a smaller shape: leading slices, and the center of `spatial` dimensions.

    Args:
        full: the largest network's tensor.
        shape: the smaller one's shape; each size at most the same size of `full`.
        name: the parameter's name, for the error.
        spatial: dimensions of which the center is taken.

    Raises:
        FamilyError: the shapes do not nest.
    """
    if len(shape) != full.dim() or any(small > large for small, large in zip(shape, full.shape, strict=True)):
        raise FamilyError(
            f"{name}: shape {tuple(shape)} does not nest in the largest network's {tuple(full.shape)}; "
            "a smaller network's parameters must be slices of the largest's"
        )
    view = full
    for dim, size in enumerate(shape):
        if size != full.shape[dim]:
            view = view.narrow(dim, (full.shape[dim] - size) // 2 if dim in spatial else 0, size)
    return view
