"""Sharing: point a smaller network's parameters, gradients and BatchNorm statistics at parts of the largest network's.

A parameter is a view of leading slices, of a convolution's kernel the center (OFA, arXiv 1908.09791, section 3.3),
unless a `Rule` says otherwise; what cannot be a view is a torch parametrization of one. Other buffers are not shared.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ofa.core.errors import FamilyError
from ofa.supernet.rules import Grouped, Kernel, Rule, nested_view


def add_extras(largest: nn.Module, rules: Mapping[str, Rule]) -> None:
    """Add the parameters that rules need beside the largest network's own, such as kernel transforms."""
    for name, parameter in list(largest.named_parameters()):
        rule = _rule_for(name, rules)
        if rule is not None:
            owner, leaf = _owner(largest, name)
            for suffix, value in rule.extras(parameter, name).items():
                owner.register_parameter(leaf + suffix, nn.Parameter(value.to(parameter)))


def share(module: nn.Module, largest: nn.Module, path: str, rules: Mapping[str, Rule] | None = None) -> None:
    """Point every parameter of `module`, its gradient if any, and BatchNorm's buffers at views into `largest`.

    The two are one module of a smaller and of the largest network, at a path in them, empty for a whole network. Rules
    are by `fnmatch` pattern of whole parameter names; the first match applies.

    Raises:
        FamilyError: the smaller module's parameters are not parts of the largest's.
    """
    full = dict(largest.named_parameters(remove_duplicate=False)) | dict(largest.named_buffers())
    parameters, buffers = list(module.named_parameters(remove_duplicate=False)), shared_buffers(module)
    prefix = f"{path}." if path else ""
    for name, _ in (*parameters, *buffers):
        if name not in full:
            raise FamilyError(
                f"{prefix}{name} is in a smaller network but not in the largest, which must hold every parameter"
            )
    views: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in parameters:
        whole_name, shape, shared = prefix + name, tuple(parameter.shape), full[name]
        (owner, leaf), (largest_owner, _) = _owner(module, name), _owner(largest, name)
        rule = _rule_for(whole_name, rules or {}) or _default_rule(owner, largest_owner)
        if parameter not in views:  # a module may hold one parameter under several names
            views[parameter] = nn.Parameter(rule.view(shared.detach(), shape, whole_name), shared.requires_grad)
        view = views[parameter]
        if shared.grad is not None:
            view.grad = rule.view(shared.grad, shape, whole_name)
        conversion = rule.parametrization(shape, largest_owner, leaf)
        if conversion is not None:
            parametrize.register_parametrization(owner, leaf, conversion, unsafe=True)
            owner, leaf = owner.get_submodule(f"parametrizations.{leaf}"), "original"
        bind(owner, leaf, view)
    for name, buffer in buffers:
        bind(module, name, nested_view(full[name], tuple(buffer.shape), prefix + name))


def shared_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return names and tensors of the buffers that networks share: those of BatchNorm layers."""
    return [
        (name, buffer) for name, buffer in module.named_buffers() if isinstance(_owner(module, name)[0], _BatchNorm)
    ]


def bind(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter or buffer into a module under a dotted name, in place of any that is there."""
    owner, leaf = _owner(module, name)
    store: dict[str, Any] = owner._parameters if isinstance(tensor, nn.Parameter) else owner._buffers
    store[leaf] = tensor


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
