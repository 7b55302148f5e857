"""How a small network's parameters sit inside the largest network's.

The default rule makes every parameter and buffer a *view*: leading slices of the first two dimensions
(output and input channels), the centre of the others (kernels). OFA, section 3.3 (arXiv 1908.09791).
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from ofa.errors import FamilyError

_T = TypeVar("_T", bound=Tensor)


def nested_view(full: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The view of `full` that a smaller parameter of the given shape shares.

    Args:
        full: the largest network's tensor.
        shape: the smaller one's shape; each size at most the same size of `full`.
        name: the parameter's name, for the error.

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
            start = 0 if dim < 2 else (full.shape[dim] - size) // 2
            view = view.narrow(dim, start, size)
    return view


def share(module: nn.Module, largest: nn.Module, path: str) -> None:
    """Points every parameter, its gradient, and every buffer of `module` at views into `largest`.

    Args:
        module: the smaller network's module, usually on the meta device.
        largest: the same module of the largest network; allocate its gradients first.
        path: where the module sits, for errors.
    """
    parameters, buffers = dict(largest.named_parameters()), dict(largest.named_buffers())
    for name, parameter in list(module.named_parameters()):
        full = _find(parameters, name, path)
        view = nn.Parameter(nested_view(full.detach(), parameter.shape, f"{path}.{name}"), full.requires_grad)
        if full.grad is not None:
            view.grad = nested_view(full.grad, parameter.shape, f"{path}.{name}")
        bind(module, name, view)
    for name, buffer in list(module.named_buffers()):
        bind(module, name, nested_view(_find(buffers, name, path), buffer.shape, f"{path}.{name}"))


def bind(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a parameter or buffer at a dotted name of a module."""
    owner, _, leaf = name.rpartition(".")
    target = module.get_submodule(owner)
    if isinstance(tensor, nn.Parameter):
        target._parameters[leaf] = tensor
    else:
        target._buffers[leaf] = tensor


def _find(tensors: dict[str, _T], name: str, path: str) -> _T:
    if name not in tensors:
        raise FamilyError(f"{path}.{name} is in a smaller network but not in the largest; it has nothing to share")
    return tensors[name]
