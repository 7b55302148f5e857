"""Official AutoFormer checkpoints (microsoft/Cream): names of tensors and descriptions of subnets.

The official network is `Vision_TransformerSuper` with `gp`, `relative_position`, `change_qkv` and absolute positions,
at 224 pixels. It is wider than the spaces need, so every tensor is cut to its leading part.
"""

from collections.abc import Mapping
from typing import Any

import torch

import ofa
from ofa.core.errors import CheckpointError

LEADING_SLICES = True

_FAMILIES = ("autoformer_tiny", "autoformer_small", "autoformer_base")
_RESOLUTION = 224  # the official code takes no other
_LISTS = ("embed_dim", "num_heads", "mlp_ratio")
_OFFICIAL = {  # parts of our names and of the official ones, replaced one after another
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
    """Return the official name of every parameter of the largest network; raises CheckpointError of other families."""
    _check(family)
    with torch.device("meta"):
        ours = list(family.build(family.space.largest).state_dict())
    return {name: _official(name) for name in ours}


def canonical(name: str) -> str:
    """Return the name itself, which all releases share."""
    return name


def arch(family: ofa.Family, description: Mapping[str, Any]) -> ofa.Arch:
    """Return the arch of an official subnet description, at 224 pixels.

    It has `layer_num`, and lists of that length: `embed_dim` (all equal), `num_heads` and `mlp_ratio`.

    Raises:
        CheckpointError: the family is another, or the description does not have this form.
        SpaceError: the family does not allow a value.
    """
    _check(family)
    missing = [key for key in ("layer_num", *_LISTS) if key not in description]
    if missing:
        raise CheckpointError(f"a subnet description must have {missing[0]!r}; this one has {[*description]}")
    depth = description["layer_num"]
    for key in _LISTS:
        if len(description[key]) != depth:
            raise CheckpointError(
                f"{key} has {len(description[key])} values but layer_num is {depth}; give one value for each layer"
            )
    widths = sorted(set(description["embed_dim"]))
    if len(widths) != 1:
        raise CheckpointError(f"embed_dim has the values {widths}; all layers of an AutoFormer must have one width")
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
            f"family {family.name!r} cannot hold an AutoFormer checkpoint; choose one of {', '.join(_FAMILIES)}"
        )
