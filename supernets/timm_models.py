"""Families of timm's own models: write timm's arguments, with a list wherever there is a choice.

The networks that `timm.create_model` builds share weights by parameter name (`Family.from_builder`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from inspect import signature
from itertools import product
from typing import Any

import timm
import torch
from torch import nn

from ofa.core.errors import FamilyError
from ofa.space.arch import Arch, Value
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import skeleton
from ofa.supernet.family import Family
from ofa.supernet.rules import Rule
from supernets.timm_layers import classifiers, heads_by_width, resolution_multiple, sharing_rules

Adjust = Callable[[dict[str, Any]], Mapping[str, Any]]

_CHOICE = {"num_heads": "heads"}
_STAGE_CHOICE = {
    **dict.fromkeys(("depths", "layers"), "depth"),
    **dict.fromkeys(("dims", "channels", "widths"), "width"),
    **{"embed_dims": "embed_dim", "num_heads": "heads", "mlp_ratios": "mlp_ratio"},
}
_RENAMED = {"in_chans": "in_channels", "img_size": "resolutions"}


def timm_family(
    model: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] | None = None,
    pretrained: bool = False,
    adjust: Adjust | None = None,
    rules: Mapping[str, Rule] | None = None,
    **arguments: Any,
) -> Family:
    """Return a family of networks that one of timm's models can be; docs/families.md has the details.

    `timm_family("vit_tiny_patch16_224", depth=[8, 10, 12], embed_dim=[96, 144, 192])` has the choices `resolution`,
    `depth` and `embed_dim`; `timm_family("convnext_atto", depths=(2, 2, [2, 4, 6], 2))` has `stage2.depth`.

    Args:
        model: a name from `timm.list_models()`.
        num_classes: length of the logits; 0 for features.
        in_channels: channels of the images.
        resolutions: sizes of the images in pixels, ascending; timm's own by default.
        pretrained: start from timm's weights. The largest network must be timm's own but for `num_classes`,
            `in_channels` and the resolution, to which timm adapts its weights.
        adjust: from a network's arguments to those that follow from them, such as `num_heads` from `embed_dim`; with a
            lambda, the family cannot be pickled.
        rules: sharing rules by pattern of parameter names, before those for timm's layers.
        arguments: arguments of `timm.create_model`. A list is a choice; a tuple has an item per stage, which may be a
            list. Heads keep their width if `num_heads` is not given and all of `embed_dim` are multiples of it.

    Raises:
        FamilyError: timm does not know the model or refuses an argument; heads do not divide `embed_dim`; a resolution
            is not a multiple of the patch size; a smaller network's parameters are not parts of the largest's; or the
            weights cannot be loaded or belong to another network.
        SpaceError: the values of a choice are not ascending numbers.
    """
    if not timm.is_model(model):
        near = ", ".join(get_close_matches(model, timm.list_models())) or "see timm.list_models()"
        raise FamilyError(f"timm has no model {model!r}; near: {near}")
    for name in arguments.keys() & _RENAMED.keys():
        raise FamilyError(f"{name} = {arguments[name]!r} has another name here; give {_RENAMED[name]}")
    fixed = {"num_classes": num_classes, "in_chans": in_channels}
    default: Any = skeleton(partial(_create, model, fixed))
    resolutions = resolutions or default.pretrained_cfg["input_size"][-1:]
    space = SearchSpace([Choice("resolution", tuple(resolutions)), *_choices(arguments)])
    takes_size = any("img_size" in signature(cls).parameters for cls in type(default).__mro__)
    start = space.largest if pretrained else None
    builder = _Builder(model, fixed, arguments, adjust, takes_size, heads_by_width(default), start)
    ends = [choice.values if choice.name in ("embed_dim", "heads") else choice.values[-1:] for choice in space.choices]
    for values in product(*ends):
        builder.arguments_for(dict(zip(space.names, values, strict=True)))  # raises if heads do not divide embed_dim
    largest = skeleton(partial(_create, model, builder.arguments_for(space.largest)))
    if pretrained:
        _check_same(model, skeleton(partial(_create, model, builder.own_arguments(resolutions[-1]))), largest)
    own_rules = dict(rules or {})  # first, as the first pattern that matches applies
    return Family.from_builder(
        space,
        builder,
        name=model,
        in_channels=in_channels,
        rules=own_rules | {name: rule for name, rule in sharing_rules(largest).items() if name not in own_rules},
        resolution_multiple=resolution_multiple(largest),
        classifiers=classifiers(largest, num_classes),
    )


@dataclass(frozen=True, eq=False)
class _Builder:
    """Builds the network of an arch: timm's model with the arch's values in place of the lists."""

    model: str
    fixed: Mapping[str, int]  # numbers of classes and input channels
    arguments: Mapping[str, Any]
    adjust: Adjust | None
    takes_size: bool  # whether the model's constructor takes the resolution
    heads_by_width: Mapping[int, int]  # of timm's own network
    pretrained: Arch | None  # whose network starts from timm's weights

    def __call__(self, arch: Arch) -> nn.Module:
        on_meta = torch.get_default_device().type == "meta"
        network: nn.Module = _create(self.model, self.arguments_for(arch), arch == self.pretrained and not on_meta)
        return network

    def own_arguments(self, resolution: Value) -> dict[str, Any]:
        """Return the arguments of timm's own network at a resolution."""
        return {**self.fixed, **({"img_size": int(resolution)} if self.takes_size else {})}

    def arguments_for(self, arch: Mapping[str, Value]) -> dict[str, Any]:
        """Return the arguments of an arch's network."""
        arguments = self.own_arguments(arch["resolution"])
        arguments |= {name: _value(name, argument, arch) for name, argument in self.arguments.items()}
        if self.adjust is not None:
            arguments |= self.adjust(dict(arguments))
        return arguments | self._heads(arguments)

    def _heads(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return `num_heads` where it follows from `embed_dim`, and check that heads divide it otherwise."""
        embed_dim, heads = arguments.get("embed_dim"), arguments.get("num_heads")
        if not isinstance(embed_dim, int):
            return {}
        numbers = list(self.heads_by_width.values()) if heads is None else [heads]
        if heads is None and numbers:
            width, embed_dims = next(iter(self.heads_by_width)), self.arguments.get("embed_dim")
            embed_dims = embed_dims if isinstance(embed_dims, list) else [embed_dim]
            if not any(number * value % width for number in numbers for value in embed_dims):
                scaled = tuple(number * embed_dim // width for number in numbers)
                return {"num_heads": scaled if len(scaled) > 1 else scaled[0]}
        for number in numbers:
            if isinstance(number, int) and embed_dim % number:
                raise FamilyError(
                    f"{number} heads do not divide embed_dim = {embed_dim}; choose values that they divide, or give "
                    "num_heads"
                )
        return {}


def _choices(arguments: Mapping[str, Any]) -> Iterator[Choice]:
    for name, argument in arguments.items():
        lists = [(_CHOICE.get(name, name), argument)]
        if isinstance(argument, tuple):
            lists = [(_stage_choice(name, stage), item) for stage, item in enumerate(argument)]
        for choice, values in lists:
            if isinstance(values, list):
                if len(values) < 2:
                    raise FamilyError(f"{choice} = {values} leaves no choice; give at least two values, or no list")
                yield Choice(choice, tuple(values))


def _stage_choice(name: str, stage: int) -> str:
    return f"stage{stage}.{_STAGE_CHOICE.get(name, name)}"


def _value(name: str, argument: Any, arch: Mapping[str, Value]) -> Any:
    """Return an argument with the arch's values in place of its lists."""
    if isinstance(argument, list):
        return arch[_CHOICE.get(name, name)]
    if isinstance(argument, tuple):
        items = enumerate(argument)
        return tuple(arch[_stage_choice(name, stage)] if isinstance(item, list) else item for stage, item in items)
    return argument


def _create(model: str, arguments: Mapping[str, Any], pretrained: bool = False) -> Any:
    try:
        return timm.create_model(model, pretrained=pretrained, **arguments)
    except Exception as error:  # constructors of models raise all kinds
        refused = re.search(r"argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and refused:
            raise FamilyError(
                f"timm's {model} does not take the argument {refused[1]!r}; give Family.from_builder a function that "
                "calls the model's constructor"
            ) from error
        if pretrained:
            reason = " ".join(str(error).split())[:300]  # timm lists every parameter
            raise FamilyError(
                f"timm's weights of {model} cannot be loaded ({reason}); give pretrained=False, or the path of a file "
                'with them as pretrained_cfg_overlay={"file": path}'
            ) from error
        if isinstance(error, RuntimeError):
            raise  # torch's own, such as on the meta device
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise FamilyError(f"timm's {model} cannot be built with {listed}: {error!r}; change these") from error


def _check_same(model: str, own: nn.Module, largest: nn.Module) -> None:
    """Raise FamilyError unless the largest network has the parameters of timm's own."""
    expected, shapes = ({name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (own, largest))
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise FamilyError(
                f"pretrained: the largest network is not timm's own {model}, {name} has shape {shapes.get(name)} "
                f"instead of {expected.get(name)}; let each list end with timm's own value, or give pretrained=False"
            )
