"""Families out of timm's own models: write timm's arguments, with a list wherever there is a choice.

Weights are shared by parameter name between the networks that `timm.create_model` builds (`Family.from_builder`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from inspect import signature
from itertools import product
from math import isqrt
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from ofa.core.errors import FamilyError
from ofa.space.arch import Arch, Value
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import skeleton
from ofa.supernet.family import Family
from ofa.supernet.rules import CenterTable, CornerTable, Grouped, ResampledPositions, Rule

_CHOICE = {"num_heads": "heads"}
_STAGE_CHOICE = {
    "depths": "depth",
    "layers": "depth",
    "dims": "width",
    "channels": "width",
    "widths": "width",
    "embed_dims": "embed_dim",
    "num_heads": "heads",
    "mlp_ratios": "mlp_ratio",
}

_CLASS_OFFSETS = 3  # rows of BEiT's tables for offsets from, to and between class tokens
_RENAMED = {"in_chans": "in_channels", "img_size": "resolutions"}


def timm_family(
    model: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    resolutions: Sequence[int] | None = None,
    pretrained: bool = False,
    adjust: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    rules: Mapping[str, Rule] | None = None,
    **arguments: Any,
) -> Family:
    """A family of the networks that one of timm's models can be.

    `timm_family("vit_tiny_patch16_224", depth=[8, 10, 12], embed_dim=[96, 144, 192])` has the choices `resolution`,
    `depth` and `embed_dim`; `timm_family("convnext_atto", depths=(2, 2, [2, 4, 6], 2))` has `stage2.depth`. Where
    `embed_dim` is given and `num_heads` is not, heads stay as wide as they are in timm's model if every `embed_dim`
    holds whole ones (multiples of 64 for most), so that a smaller network has the first heads of the largest;
    otherwise there are as many heads as in timm's model.

    Args:
        model: a name of `timm.list_models()`.
        num_classes: length of the logits.
        in_channels: of the images.
        resolutions: in pixels, ascending; by default the one that timm's model is for.
        pretrained: start from timm's weights. The largest network must be timm's own, but for `num_classes`,
            `in_channels` and the resolution, which timm adapts its weights to.
        adjust: from a network's arguments to those that follow from them, such as
            `lambda given: {"num_heads": given["embed_dim"] // 32}`.
        rules: how parameters are shared, by patterns over their names, ahead of those for timm's names: fused `qkv`
            and `kv` layers by `Grouped`, tables of relative positions by `CenterTable`, position embeddings by
            `ResampledPositions`; see `ofa.supernet.rules`.
        arguments: for `timm.create_model`. A list is a choice of the same name (`heads`, if it is `num_heads`). A tuple
            has an item for each stage, which may be a list: the choice is then `stage2.depth` (of `depths`, `layers`),
            `stage2.width` (`dims`, `channels`, `widths`), `stage2.embed_dim`, `stage2.heads`, `stage2.mlp_ratio`,
            else `stage2.` and the argument's name. Anything else is passed on as it is.

    Raises:
        FamilyError: timm does not know the model or refuses an argument, heads do not divide `embed_dim`, a
            resolution is not a multiple of the patch, parameters of a smaller network are not parts of the largest's,
            or the weights cannot be had or are those of another network.
        SpaceError: the values of a choice are not ascending numbers.
    """
    if not timm.is_model(model):
        near = ", ".join(get_close_matches(model, timm.list_models())) or "see timm.list_models()"
        raise FamilyError(f"timm has no model {model!r}; near: {near}")
    for name in arguments.keys() & _RENAMED.keys():
        raise FamilyError(f"{name} = {arguments[name]!r} goes by another name here; give {_RENAMED[name]}")
    default: Any = skeleton(partial(_create, model, {"num_classes": num_classes, "in_chans": in_channels}))
    resolutions = resolutions or default.pretrained_cfg["input_size"][-1:]
    space = SearchSpace([Choice("resolution", tuple(resolutions)), *_choices(arguments)])
    sized = any("img_size" in signature(kind).parameters for kind in type(default).__mro__)

    def own(resolution: Value) -> dict[str, Any]:
        size = {"img_size": int(resolution)} if sized else {}
        return {"num_classes": num_classes, "in_chans": in_channels, **size}

    def chosen(arch: Mapping[str, Value]) -> dict[str, Any]:
        given = own(arch["resolution"]) | {name: _chosen(name, item, arch) for name, item in arguments.items()}
        given |= adjust(dict(given)) if adjust else {}
        return _with_heads(default, given, arguments.get("embed_dim"))

    def build(arch: Arch) -> nn.Module:
        on_meta = torch.get_default_device().type == "meta"
        network: nn.Module = _create(model, chosen(arch), pretrained and arch == space.largest and not on_meta)
        return network

    ends = [choice.values if choice.name in ("embed_dim", "heads") else choice.values[-1:] for choice in space.choices]
    for values in product(*ends):
        chosen(dict(zip(space.names, values, strict=True)))  # for its errors
    largest = skeleton(partial(_create, model, chosen(space.largest)))
    if pretrained:
        _check_same(model, skeleton(partial(_create, model, own(resolutions[-1]))), largest)
    patches, own_rules = _patches(largest), dict(rules or {})
    return Family.from_builder(
        space,
        build,
        name=model,
        in_channels=in_channels,
        rules=own_rules | {name: rule for name, rule in _rules(largest).items() if name not in own_rules},
        resolution_multiple=patches.patch_size[0] if patches is not None and patches.strict_img_size else 1,
    )


def _choices(arguments: Mapping[str, Any]) -> Iterator[Choice]:
    for name, given in arguments.items():
        for choice, values in _lists(name, given):
            if len(values) < 2:
                raise FamilyError(f"{choice} = {values} leaves no choice; give at least two values, or no list")
            yield Choice(choice, tuple(values))


def _lists(name: str, given: Any) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(given, list):
        yield _CHOICE.get(name, name), given
    elif isinstance(given, tuple):
        yield from ((_of_stage(name, i), item) for i, item in enumerate(given) if isinstance(item, list))


def _of_stage(name: str, stage: int) -> str:
    return f"stage{stage}.{_STAGE_CHOICE.get(name, name)}"


def _chosen(name: str, given: Any, arch: Mapping[str, Value]) -> Any:
    """An argument with the arch's values in the places of its lists."""
    if isinstance(given, list):
        return arch[_CHOICE.get(name, name)]
    if isinstance(given, tuple):
        items = enumerate(given)
        return tuple(arch[_of_stage(name, i)] if isinstance(item, list) else item for i, item in items)
    return given


def _create(model: str, arguments: Mapping[str, Any], pretrained: bool = False) -> Any:
    try:
        network = timm.create_model(model, pretrained=pretrained, **arguments)
    except Exception as error:
        refused = re.search(r"argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and refused:
            raise FamilyError(
                f"timm's {model} does not let {refused[1]!r} be given; give Family.from_builder a function that calls "
                "the model's constructor"
            ) from error
        if pretrained:
            why = " ".join(str(error).split())[:300]  # timm lists every parameter
            raise FamilyError(
                f"timm's weights of {model} cannot be loaded ({why}); give pretrained=False, or the path of a file "
                'with them as pretrained_cfg_overlay={"file": path}'
            ) from error
        if isinstance(error, RuntimeError):
            raise  # torch's own, such as on the meta device
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise FamilyError(f"timm's {model} cannot be made with {given}: {error!r}; change these") from error
    return network


def _with_heads(default: Any, given: dict[str, Any], embed_dims: Any) -> dict[str, Any]:
    """The arguments with heads as wide as timm's model has them, where they follow from `embed_dim`.

    Args:
        default: timm's own network.
        given: the arguments of one network.
        embed_dims: the value, or values, of `embed_dim` in the whole family.
    """
    embed_dim, heads = given.get("embed_dim"), given.get("num_heads")
    if not isinstance(embed_dim, int):
        return given
    if heads is not None:
        _check_heads(embed_dim, heads)
        return given
    heads_by_width = {
        module.qkv.in_features: module.num_heads
        for module in default.modules()
        if hasattr(module, "num_heads") and isinstance(getattr(module, "qkv", None), nn.Linear)
    }
    if not heads_by_width:
        return given
    width = next(iter(heads_by_width))
    every = embed_dims if isinstance(embed_dims, list) else [embed_dim]
    if any(number * value % width for number in heads_by_width.values() for value in every):
        for number in heads_by_width.values():
            _check_heads(embed_dim, number)
        return given
    scaled = tuple(number * embed_dim // width for number in heads_by_width.values())
    return given | {"num_heads": scaled if len(scaled) > 1 else scaled[0]}


def _check_heads(embed_dim: int, heads: Any) -> None:
    if isinstance(heads, int) and embed_dim % heads:
        raise FamilyError(
            f"{heads} heads do not divide embed_dim = {embed_dim}; choose values that they divide, or give num_heads"
        )


def _rules(network: nn.Module) -> dict[str, Rule]:
    """What holds for timm's names, in the largest network of a family."""
    rules: dict[str, Rule] = {}
    patches = _patches(network)
    for path, module in network.named_modules():
        head_major = getattr(module, "head_first", False) or hasattr(module, "key_dim")  # q, k, v of a head together
        for leaf, groups in (("qkv", 3), ("kv", 2)):
            if isinstance(getattr(module, leaf, None), nn.Linear | nn.Conv2d) and not head_major:
                rules[f"{path}.{leaf}.*"] = Grouped(groups)
    for name, parameter in network.named_parameters():
        if name.endswith("relative_position_bias_table") and parameter.dim() == 2:
            rules[name] = CenterTable(extra=0 if isqrt(len(parameter)) ** 2 == len(parameter) else _CLASS_OFFSETS)
        elif name.endswith("attention_biases"):
            rules[name] = CornerTable()
        elif name.endswith("pos_embed") and parameter.dim() == 3 and patches is not None:
            rules[name] = ResampledPositions(prefix=parameter.shape[1] - patches.num_patches)
    return rules


def _patches(network: nn.Module) -> Any:
    return next((module for module in network.modules() if isinstance(module, PatchEmbed)), None)


def _check_same(model: str, own: nn.Module, largest: nn.Module) -> None:
    """Refuses to start the largest network from the weights of another one."""
    shapes, wanted = ({name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (own, largest))
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise FamilyError(
                f"pretrained: the largest network is not timm's own {model}, {name} has shape {wanted.get(name)} "
                f"instead of {shapes.get(name)}; let each list end with timm's own value, or give pretrained=False"
            )
