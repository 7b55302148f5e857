"""Official once-for-all checkpoints for our families: which tensor is which, and which arch a subnet description is.

The names are those of the official repository's networks (mit-han-lab/once-for-all): `OFAMobileNetV3`,
`OFAProxylessNASNets`, `OFAResNets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

import ofa
from ofa.core.errors import CheckpointError
from ofa.space.arch import Value
from supernets.ofa_resnet50 import WIDTHS

CUT = False


_FIELDS = {"ofa_mobilenet_v3": ("ks", "e", "d"), "ofa_proxyless": ("ks", "e", "d"), "ofa_resnet50": ("e", "d", "w")}


_LAYERS = {  # within a block, ours and theirs
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "se.fc1": "depth_conv.se.fc.reduce",
    "se.fc2": "depth_conv.se.fc.expand",
    "project": "point_linear",
    "shortcut": "downsample",
}


_ELASTIC = (  # their elastic layers hold an ordinary one inside
    (r"conv\.weight_(\d+to\d+)$", r"conv.\1_matrix"),
    (r"conv\.weight$", "conv.conv.weight"),
    (r"bn\.(\w+)$", r"bn.bn.\1"),
)


def names(family: ofa.Family) -> dict[str, str]:
    """The official name of every parameter and buffer of a family's largest network, kernel transforms included.

    A 1x1 convolution of ours may be a linear layer of theirs, whose weight lacks the last two dimensions.

    Args:
        family: `ofa_mobilenet_v3`, `ofa_proxyless` or `ofa_resnet50`, of any width.

    Raises:
        CheckpointError: once-for-all has no such family.
    """
    _check(family)
    with torch.device("meta"):
        ours = list(ofa.Supernet(family).network.state_dict())
    blocks = _blocks(family)
    if family.name == "ofa_resnet50":
        places = {path: f"blocks.{n}" for n, path in enumerate(blocks)}
        places |= {"stem.0": "input_stem.0", "stem.1": "input_stem.1.conv", "stem.2": "input_stem.2"}
        places["head.classifier"] = "classifier.linear.linear"
        elastic = tuple(places)
    else:
        places = {path: f"blocks.{n}.conv" for n, path in enumerate(["first", *blocks])}
        places |= {
            "stem": "first_conv",
            "head.hidden": "feature_mix_layer.conv",
            "head.classifier": "classifier.linear",
        }
        places["head.conv"] = "final_expand_layer" if "head.hidden.weight" in ours else "feature_mix_layer"
        elastic = tuple(blocks)
    return {name: _official(name, places, elastic) for name in ours}


def canonical(name: str) -> str:
    """A tensor's name in a form that all releases share: they call a block's body and elastic layers differently."""
    name = name.replace(".mobile_inverted_conv.", ".conv.").replace(".conv.conv.weight", ".conv.weight")
    return name.replace(".bn.bn.", ".bn.").replace(".linear.linear.", ".linear.")


def arch(family: ofa.Family, description: Mapping[str, Any]) -> ofa.Arch:
    """The arch of an official subnet description.

    Args:
        family: `ofa_mobilenet_v3`, `ofa_proxyless` or `ofa_resnet50`.
        description: lists with one entry per block, also of skipped ones, `ks` (kernels) and `e` (expansions), and
            with one per stage `d` (depths). For `ofa_resnet50` `e`, `d` (of the stem, then how many blocks more than
            the least per stage) and `w` (indices of widths: two in the stem, one per stage). A number stands for a
            list of it. `image_size` or `r`, in pixels, if there; the largest resolution otherwise. Fields that are
            None count as not there.

    Raises:
        CheckpointError: no such family, or the description's fields or their lengths are not this family's.
        SpaceError: a value that the family does not allow.
    """
    _check(family)
    given = {name: value for name, value in description.items() if value is not None}
    resolution = [_entries(given, name, 1)[0] for name in ("image_size", "r") if name in given]
    given = {name: value for name, value in given.items() if name not in ("image_size", "r")}
    if set(given) != set(_FIELDS[family.name]):
        raise CheckpointError(
            f"a subnet of {family.name} is described by {', '.join(_FIELDS[family.name])} and, if wanted, image_size "
            f"or r; this one has {', '.join(map(repr, given)) or 'none of them'}"
        )
    values: dict[str, Value] = {"resolution": resolution[0] if resolution else family.resolutions[-1]}
    values |= _resnet(family, given) if family.name == "ofa_resnet50" else _mobile(family, given)
    return family.space.arch(values)


def _check(family: ofa.Family) -> None:
    if family.name not in _FIELDS:
        raise CheckpointError(f"once-for-all has no family {family.name!r}; it has {', '.join(_FIELDS)}")


def _blocks(family: ofa.Family) -> list[str]:
    return [slot.path for slot in family.slots if slot.path.startswith("stages.")]


def _official(name: str, places: Mapping[str, str], elastic: tuple[str, ...]) -> str:
    place = next(place for place in places if name.startswith(f"{place}."))
    rest = name.removeprefix(place)
    for ours, theirs in _LAYERS.items():
        if rest.startswith(f".{ours}."):
            rest = f".{theirs}" + rest.removeprefix(f".{ours}")
    if place in elastic:
        for pattern, replacement in _ELASTIC:
            rest, found = re.subn(pattern, replacement, rest)
            if found:
                break
    return places[place] + rest


def _entries(description: Mapping[str, Any], name: str, length: int) -> list[Value]:
    value = description[name]
    entries = [value] * length if isinstance(value, int | float) else list(value)
    if len(entries) != length:
        raise CheckpointError(f"{name!r} of a subnet has {len(entries)} entries, {length} are wanted: {value}")
    return entries


def _per_block(family: ofa.Family, description: Mapping[str, Any], depths: list[Value]) -> dict[str, Value]:
    """The choices of the blocks that are not skipped; official descriptions may have any value for the others."""
    blocks, values = _blocks(family), {}
    for field, choice in (("ks", "kernel"), ("e", "expand")):
        if field in description:
            for path, value in zip(blocks, _entries(description, field, len(blocks)), strict=True):
                stage, block = map(int, path.split(".")[1:])
                if block < depths[stage]:
                    values[f"stage{stage}.block{block}.{choice}"] = value
    return values


def _mobile(family: ofa.Family, description: Mapping[str, Any]) -> dict[str, Value]:
    choices = [choice for choice in family.space.choices if choice.name.endswith(".depth")]
    entries = zip(choices, _entries(description, "d", len(choices)), strict=True)
    # Official descriptions may hold any depth for a stage that has but one.
    depths = [choice.values[0] if len(choice.values) == 1 else depth for choice, depth in entries]
    named = {choice.name: depth for choice, depth in zip(choices, depths, strict=True)}
    return named | _per_block(family, description, depths)


def _resnet(family: ofa.Family, description: Mapping[str, Any]) -> dict[str, Value]:
    stem, *extra = _entries(description, "d", 5)
    indices = _entries(description, "w", 6)
    wrong = [index for index in indices if index not in range(len(WIDTHS))]
    if wrong:
        raise CheckpointError(f"'w' of a subnet holds {wrong[0]!r}; each is an index into the widths {WIDTHS}")
    mid, stem_width, *widths = (WIDTHS[int(index)] for index in indices)
    depths: list[Value] = [base + more for base, more in zip((2, 2, 4, 2), extra, strict=True)]
    values: dict[str, Value] = {
        "stem.depth": 2 if stem == 2 else 0,  # theirs, too, counts any other number as none
        "stem.mid_width": 1.0 if mid == 1.0 else 0.65,  # 0.8 gives as many channels
        "stem.width": stem_width,
    }
    values |= {f"stage{s}.depth": depth for s, depth in enumerate(depths)}
    values |= {f"stage{s}.width": width for s, width in enumerate(widths)}
    return values | _per_block(family, description, depths)
