"""How a small network's parameters sit inside the largest network's.

By default a parameter is a *view*: leading slices of the largest one's; of a convolution's weight, leading slices of
output and input channels and the center of the kernel (OFA, section 3.3, arXiv 1908.09791). A `Rule` says otherwise
where needed: rules that cannot be views are torch parametrizations of a view, so that gradients still
reach the shared one. BatchNorm's buffers are views as well; other buffers are each module's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ofa.core.errors import FamilyError
from ofa.supernet.rules import Grouped, Kernel, Rule, nested_view

_T = TypeVar("_T", bound=Tensor)


def add_extras(largest: nn.Module, rules: Mapping[str, Rule]) -> None:
    """Gives the largest network the parameters that rules need beside its own, such as kernel transforms."""
    for name, parameter in list(largest.named_parameters()):
        rule = _rule_for(name, rules)
        if rule is not None:
            owner, leaf = _owner(largest, name)
            for suffix, value in rule.extras(parameter, name).items():
                owner.register_parameter(leaf + suffix, nn.Parameter(value.to(parameter)))


def share(module: nn.Module, largest: nn.Module, path: str, rules: Mapping[str, Rule] | None = None) -> None:
    """Points every parameter, its gradient, and BatchNorm's buffers in `module` at views into `largest`.

    Args:
        module: the smaller network's module.
        largest: the same module of the largest network; allocate its gradients first.
        path: where the module sits, for rules and errors; empty for a whole network.
        rules: by patterns over whole parameter names, as in `fnmatch`; the first that fits holds.

    Raises:
        FamilyError: the smaller module's parameters are not parts of the largest's.
    """
    parameters = dict(largest.named_parameters(remove_duplicate=False))
    buffers, views = dict(largest.named_buffers()), dict[nn.Parameter, nn.Parameter]()
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        whole_name = f"{path}.{name}" if path else name
        full = _find(parameters, name, whole_name)
        (owner, leaf), (largest_owner, _) = _owner(module, name), _owner(largest, name)
        rule = _rule_for(whole_name, rules or {}) or _default_rule(owner, largest_owner)
        view = views.get(parameter)  # some modules hold one parameter under several names
        if view is None:
            view = views[parameter] = nn.Parameter(
                rule.view(full.detach(), tuple(parameter.shape), whole_name), full.requires_grad
            )
        if full.grad is not None:
            view.grad = rule.view(full.grad, tuple(parameter.shape), whole_name)
        conversion = rule.parametrization(tuple(parameter.shape), largest_owner, leaf)
        if conversion is not None:
            parametrize.register_parametrization(owner, leaf, conversion, unsafe=True)
            owner, leaf = owner.get_submodule(f"parametrizations.{leaf}"), "original"
        owner._parameters[leaf] = view
    for name, buffer in shared_buffers(module):
        whole_name = f"{path}.{name}" if path else name
        bind(module, name, nested_view(_find(buffers, name, whole_name), tuple(buffer.shape), whole_name))


def shared_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The buffers of a module that networks share, BatchNorm's; all others are the module's own."""
    return [
        (name, buffer) for name, buffer in module.named_buffers() if isinstance(_owner(module, name)[0], _BatchNorm)
    ]


def bind(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a parameter or buffer at a dotted name of a module."""
    target, leaf = _owner(module, name)
    if isinstance(tensor, nn.Parameter):
        target._parameters[leaf] = tensor
    else:
        target._buffers[leaf] = tensor


def _default_rule(owner: nn.Module, largest_owner: nn.Module) -> Rule:
    if not isinstance(owner, _ConvNd) or not isinstance(largest_owner, _ConvNd):
        return Rule()
    depthwise = owner.groups == owner.in_channels == owner.out_channels
    return Grouped(owner.groups) if owner.groups == largest_owner.groups > 1 and not depthwise else Kernel()


def _rule_for(name: str, rules: Mapping[str, Rule]) -> Rule | None:
    return next((rule for pattern, rule in rules.items() if fnmatchcase(name, pattern)), None)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf


def _find(tensors: dict[str, _T], name: str, whole_name: str) -> _T:
    if name not in tensors:
        raise FamilyError(f"{whole_name} is in a smaller network but not in the largest; it has nothing to share")
    return tensors[name]
