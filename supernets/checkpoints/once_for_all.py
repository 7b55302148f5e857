"""Official once-for-all checkpoints (mit-han-lab/once-for-all): names of tensors and descriptions of subnets.

The official networks are `OFAMobileNetV3`, `OFAProxylessNASNets` and `OFAResNets`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

import ofa
from ofa.core.errors import CheckpointError
from ofa.space.arch import Value
from supernets.ofa_resnet50 import WIDTHS

LEADING_SLICES = False

_FIELDS = {"ofa_mobilenet_v3": ("ks", "e", "d"), "ofa_proxyless": ("ks", "e", "d"), "ofa_resnet50": ("e", "d", "w")}
_LAYERS = {  # our and the official names of layers in a block, replaced one after another
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "se.fc1": "depth_conv.se.fc.reduce",
    "se.fc2": "depth_conv.se.fc.expand",
    "project": "point_linear",
    "shortcut": "downsample",
}


def names(family: ofa.Family) -> dict[str, str]:
    """Return the canonical official name of every parameter and buffer of a family's largest network.

    Some of our 1x1 convolutions are official linear layers, whose weights lack the last two dimensions.

    Raises:
        CheckpointError: once-for-all has no such family.
    """
    _check(family)
    with torch.device("meta"):
        ours = list(ofa.Supernet(family).network.state_dict())
    blocks = _blocks(family)
    places = {"head.classifier": "classifier.linear"}
    if family.name == "ofa_resnet50":
        places |= {path: f"blocks.{n}" for n, path in enumerate(blocks)}
        places |= {"stem.0": "input_stem.0", "stem.1": "input_stem.1.conv", "stem.2": "input_stem.2"}
    else:
        places |= {path: f"blocks.{n}.conv" for n, path in enumerate(["first", *blocks])}
        places |= {"stem": "first_conv", "head.hidden": "feature_mix_layer.conv"}
        places["head.conv"] = "final_expand_layer" if "head.hidden.weight" in ours else "feature_mix_layer"
    return {name: _official(name, places) for name in ours}


def canonical(name: str) -> str:
    """Return a tensor's name in a form that all releases share; their blocks and elastic layers have other names."""
    name = name.replace(".mobile_inverted_conv.", ".conv.").replace(".conv.conv.weight", ".conv.weight")
    return name.replace(".bn.bn.", ".bn.").replace(".linear.linear.", ".linear.")


def arch(family: ofa.Family, description: Mapping[str, Any]) -> ofa.Arch:
    """Return the arch of an official subnet description.

    It has lists with an entry per block, skipped ones included, `ks` (kernels) and `e` (expansions), and a list with an
    entry per stage, `d` (depths). For `ofa_resnet50` it has `e`, `d` (of the stem, then the number of blocks above the
    minimum per stage) and `w` (indices of widths: two for the stem, one per stage). A number stands for a list of it.
    `image_size` or `r` is the resolution in pixels, by default the largest. Fields that are None are ignored.

    Raises:
        CheckpointError: there is no such family, or the description's fields or their lengths are not this family's.
        SpaceError: the family does not allow a value.
    """
    _check(family)
    fields = {name: value for name, value in description.items() if value is not None}
    resolution = [_entries(fields, name, 1)[0] for name in ("image_size", "r") if name in fields]
    fields = {name: value for name, value in fields.items() if name not in ("image_size", "r")}
    if set(fields) != set(_FIELDS[family.name]):
        raise CheckpointError(
            f"a subnet of {family.name} is described by {', '.join(_FIELDS[family.name])} and optionally image_size or "
            f"r; this description has {', '.join(map(repr, fields)) or 'none of them'}"
        )
    values: dict[str, Value] = {"resolution": resolution[0] if resolution else family.resolutions[-1]}
    values |= _resnet(family, fields) if family.name == "ofa_resnet50" else _mobile(family, fields)
    return family.space.arch(values)


def _check(family: ofa.Family) -> None:
    if family.name not in _FIELDS:
        raise CheckpointError(f"once-for-all has no family {family.name!r}; choose one of {', '.join(_FIELDS)}")


def _blocks(family: ofa.Family) -> list[str]:
    return [slot.path for slot in family.slots if slot.path.startswith("stages.")]


def _official(name: str, places: Mapping[str, str]) -> str:
    place = next(place for place in places if name.startswith(f"{place}."))
    name = places[place] + name.removeprefix(place)
    for ours, official in _LAYERS.items():
        name = name.replace(f".{ours}.", f".{official}.")
    return re.sub(r"weight_(\d+to\d+)$", r"\1_matrix", name)


def _entries(fields: Mapping[str, Any], name: str, length: int) -> list[Value]:
    value = fields[name]
    entries = [value] * length if isinstance(value, int | float) else list(value)
    if len(entries) != length:
        raise CheckpointError(f"{name!r} of a subnet has {len(entries)} entries instead of {length}: {value}")
    return entries


def _per_block(family: ofa.Family, fields: Mapping[str, Any], depths: list[Value]) -> dict[str, Value]:
    """Return the choices of the blocks that are not skipped; descriptions may have any value for the others."""
    blocks, values = _blocks(family), {}
    for field, choice in (("ks", "kernel"), ("e", "expand")):
        if field in fields:
            for path, value in zip(blocks, _entries(fields, field, len(blocks)), strict=True):
                stage, block = map(int, path.split(".")[1:])
                if block < depths[stage]:
                    values[f"stage{stage}.block{block}.{choice}"] = value
    return values


def _mobile(family: ofa.Family, fields: Mapping[str, Any]) -> dict[str, Value]:
    choices = [choice for choice in family.space.choices if choice.name.endswith(".depth")]
    entries = zip(choices, _entries(fields, "d", len(choices)), strict=True)
    # Official descriptions may hold any depth for a stage of fixed depth.
    depths = {choice.name: choice.values[0] if len(choice.values) == 1 else depth for choice, depth in entries}
    return depths | _per_block(family, fields, list(depths.values()))


def _resnet(family: ofa.Family, fields: Mapping[str, Any]) -> dict[str, Value]:
    stem, *extra = _entries(fields, "d", 5)
    indices = _entries(fields, "w", 6)
    for index in indices:
        if index not in range(len(WIDTHS)):
            raise CheckpointError(f"'w' of a subnet holds {index!r}; each entry must be an index into {WIDTHS}")
    mid, stem_width, *widths = (WIDTHS[int(index)] for index in indices)
    depths: list[Value] = [base + more for base, more in zip((2, 2, 4, 2), extra, strict=True)]
    values: dict[str, Value] = {
        "stem.depth": 2 if stem == 2 else 0,  # the official code, too, treats any other number as 0
        "stem.mid_width": 1.0 if mid == 1.0 else 0.65,  # 0.8 gives the same channels
        "stem.width": stem_width,
    }
    values |= {f"stage{s}.depth": depth for s, depth in enumerate(depths)}
    values |= {f"stage{s}.width": width for s, width in enumerate(widths)}
    return values | _per_block(family, fields, depths)
