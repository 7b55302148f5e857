"""Official checkpoints of AutoFormer (microsoft/Cream, Vision_TransformerSuper) in this package's names.

Which networks: supernets with `gp`, `relative_position`, `change_qkv` and absolute positions, at 224 pixels; the
official supernets are larger than the spaces need, so each tensor is cut to its leading part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import ofa
from ofa.core.errors import CheckpointError

CUT = True  # a larger official tensor is cut to leading slices


_FAMILIES = ("autoformer_tiny", "autoformer_small", "autoformer_base")


_RESOLUTION = 224  # the official code takes no other


_LISTS = ("embed_dim", "num_heads", "mlp_ratio")


_OFFICIAL = {  # parts of our names and what they are there, all that fit are replaced
    "patch_embed.proj": "patch_embed_super.proj",
    "patch_embed.cls_token": "cls_token",
    "patch_embed.pos_embed": "pos_embed",
    "norm1": "attn_layer_norm",
    "norm2": "ffn_layer_norm",
    "key_positions": "rel_pos_embed_k",
    "value_positions": "rel_pos_embed_v",
    "vertical": "embeddings_table_v",
    "horizontal": "embeddings_table_h",
    "mlp.": "",
    "head.norm": "norm",
    "head.classifier": "head",
}


def names(family: ofa.Family) -> dict[str, str]:
    """For each name in the state dict of the family's largest network, its name in the official checkpoint.

    Raises:
        CheckpointError: the family is not one of AutoFormer's.
    """
    _check(family)
    with torch.device("meta"):
        ours = list(family.build(family.space.largest).state_dict())
    return {name: _official(name) for name in ours}


def canonical(name: str) -> str:
    """A tensor's name in a form that all releases share: here the name itself."""
    return name


def arch(family: ofa.Family, description: Mapping[str, Any]) -> ofa.Arch:
    """The arch of an official description of a subnet, at 224 pixels.

    Args:
        family: one of AutoFormer's, with 224 among its resolutions.
        description: `layer_num`, and lists of that length `embed_dim` (all equal), `num_heads`, `mlp_ratio`.

    Raises:
        CheckpointError: another family, or a description that is not of this form.
        SpaceError: a value that the family's space does not have.
    """
    _check(family)
    missing = [key for key in ("layer_num", *_LISTS) if key not in description]
    if missing:
        raise CheckpointError(
            f"an official description of a subnet has a {missing[0]!r}, this one has {[*description]}"
        )
    depth = description["layer_num"]
    for key in _LISTS:
        if len(description[key]) != depth:
            raise CheckpointError(
                f"{key} has {len(description[key])} values but layer_num is {depth}; give one value for each layer"
            )
    widths = sorted(set(description["embed_dim"]))
    if len(widths) != 1:
        raise CheckpointError(f"embed_dim has {widths}; all layers of an AutoFormer have one width, give one value")
    values = {"resolution": _RESOLUTION, "embed_dim": widths[0], "depth": depth}
    for b, (heads, ratio) in enumerate(zip(description["num_heads"], description["mlp_ratio"], strict=True)):
        values |= {f"block{b}.heads": heads, f"block{b}.mlp_ratio": ratio}
    return family.space.arch(values)


def _official(name: str) -> str:
    for ours, official in _OFFICIAL.items():
        name = name.replace(ours, official)
    return name


def _check(family: ofa.Family) -> None:
    if family.name not in _FAMILIES:
        raise CheckpointError(
            f"{family.name!r} cannot hold an AutoFormer checkpoint; take one of {', '.join(_FAMILIES)}"
        )
