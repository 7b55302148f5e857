"""Properties of timm's networks that families of them need: classifiers, heads, patch size, sharing rules."""

from math import isqrt
from typing import Any

from timm.layers import PatchEmbed
from torch import nn

from ofa.supernet.rules import Grouped, Rule
from supernets.rules import CenterTable, CornerTable, ResampledPositions

_CLASS_TOKEN_ROWS = 3  # of BEiT's tables: offsets from, to and between class tokens


def classifiers(network: Any, num_classes: int) -> tuple[str, ...]:
    """Return the paths of the layers that compute the logits; distilled models have two."""
    heads = network.get_classifier()
    layers = {
        layer
        for head in (heads if isinstance(heads, tuple) else (heads,))
        for layer in head.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == num_classes
    }
    return tuple(path for path, module in network.named_modules() if module in layers)


def heads_by_width(network: nn.Module) -> dict[int, int]:
    """Return the number of attention heads for each width, in the order of the stages."""
    attentions: list[Any] = [module for module in network.modules() if hasattr(module, "num_heads")]
    return {a.qkv.in_features: a.num_heads for a in attentions if isinstance(getattr(a, "qkv", None), nn.Linear)}


def resolution_multiple(network: nn.Module) -> int:
    """Return what the resolution must be a multiple of: the patch size of models that do not pad, otherwise 1."""
    patches = _patch_embed(network)
    return int(patches.patch_size[0]) if patches is not None and patches.strict_img_size else 1


def sharing_rules(network: nn.Module) -> dict[str, Rule]:
    """Return the sharing rules by pattern of parameter names, from the largest network of a family."""
    rules: dict[str, Rule] = {}
    patches = _patch_embed(network)
    for path, module in network.named_modules():
        per_head = getattr(module, "head_first", False) or hasattr(module, "key_dim")  # q, k, v of a head are adjacent
        for leaf, groups in (("qkv", 3), ("kv", 2)):
            if isinstance(getattr(module, leaf, None), nn.Linear | nn.Conv2d) and not per_head:
                rules[f"{path}.{leaf}.*"] = Grouped(groups)
    for name, parameter in network.named_parameters():
        if name.endswith("relative_position_bias_table") and parameter.dim() == 2:
            square = isqrt(len(parameter)) ** 2 == len(parameter)
            rules[name] = CenterTable(extra=0 if square else _CLASS_TOKEN_ROWS)
        elif name.endswith("attention_biases"):
            rules[name] = CornerTable()
        elif name.endswith("pos_embed") and parameter.dim() == 3 and patches is not None:
            rules[name] = ResampledPositions(extra=parameter.shape[1] - patches.num_patches)
    return rules


def _patch_embed(network: nn.Module) -> PatchEmbed | None:
    return next((module for module in network.modules() if isinstance(module, PatchEmbed)), None)
