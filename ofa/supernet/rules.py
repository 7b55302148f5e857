"""Rules: which part of the largest network's parameter a smaller network's parameter shares.

The rules here serve any family; `supernets.rules` holds those of single families.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ofa.core.errors import FamilyError

Shape = tuple[int, ...]


class Rule:
    """Share leading slices of every dimension. Subclasses share something else."""

    def extras(self, full: Tensor, name: str) -> dict[str, Tensor]:  # noqa: ARG002  # for subclasses
        """Return initial values of the parameters that the largest network holds beside its `full`, by suffix.

        A parameter `weight` with the extra `_5to3` gets a neighbor `weight_5to3`. The name is for errors.
        """
        return {}

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """Return the view, for a smaller network's parameter, of the largest network's parameter or gradient `full`.

        Raises:
            FamilyError: the shapes do not nest.
        """
        return nested_view(full, shape, name)

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:  # noqa: ARG002
        """Return the module that computes the parameter from its view in every forward pass; None if it is the view.

        `owner` is the largest network's module that holds the parameter, as `leaf`, and its extras.
        """
        return None


class Kernel(Rule):
    """Share leading slices of a convolution's channels and the center of its kernel."""

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`."""
        return nested_view(full, shape, name, spatial=range(2, full.dim()))


@dataclass(frozen=True)
class Grouped(Rule):
    """Share the leading rows of each of several equal groups, and the center of kernels.

    This fits fused q, k, v layers `[3 * width, ...]`. It is the default for convolutions with a fixed number of groups.
    """

    groups: int = 3

    def view(self, full: Tensor, shape: Shape, name: str) -> Tensor:
        """See `Rule.view`. The view has a leading dimension for the groups, as its rows are no slice of all rows."""
        if tuple(full.shape) == shape:
            return full
        if full.shape[0] % self.groups or shape[0] % self.groups:
            raise FamilyError(
                f"{name}: the rows of shape {shape} in the largest network's {tuple(full.shape)} do not form "
                f"{self.groups} equal groups; give the parameter another rule"
            )
        by_group = full.view(self.groups, -1, *full.shape[1:])
        part = (self.groups, shape[0] // self.groups, *shape[1:])
        return nested_view(by_group, part, name, spatial=range(3, by_group.dim()))

    def parametrization(self, shape: Shape, owner: nn.Module, leaf: str) -> nn.Module | None:
        """See `Rule.parametrization`."""
        return None if shape == tuple(owner.get_parameter(leaf).shape) else _Reshape(shape)


class _Reshape(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, view: Tensor) -> Tensor:
        return view.reshape(self.shape)


def nested_view(full: Tensor, shape: Shape, name: str, *, spatial: range = range(0)) -> Tensor:
    """Return the view of `full` with a smaller shape: leading slices, and the center of `spatial` dimensions.

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
