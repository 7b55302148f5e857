"""Extracted networks as timm's own models, so that what is built around timm can use them.

A network of `timm_family` is timm's already. A MobileNetV3 of ours is rebuilt by timm's constructor, and the weights,
which come in the same order, are loaded under timm's names.
"""

from collections.abc import Mapping
from functools import partial

import torch
from timm.models import MobileNetV3
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from torch import nn

from ofa import Family
from ofa.core.errors import ExportError
from ofa.space.arch import Value
from supernets.blocks.convolutions import ConvNorm, Head, MBConv

_ACTS = {"relu": "re", "relu6": "r6", "swish": "sw", "hard_swish": "hs"}


def to_timm(family: Family, arch: Mapping[str, Value], network: nn.Module) -> nn.Module:
    """Return the timm model that equals an arch's extracted network; save its `state_dict()` for timm's names.

    Raises:
        ExportError: timm has no such network.
    """
    if type(network).__module__.startswith("timm."):
        return network
    refusal = ExportError(f"timm has no model that equals this network of {family.name!r}; export it to ONNX instead")
    stem, *body, head = [block for _, block in family.blocks(family.space.row(arch)) if block is not None]
    inner = [block for block in body if isinstance(block, MBConv) and block.act in _ACTS]
    if not (isinstance(stem, ConvNorm) and isinstance(head, Head) and head.hidden and inner == body):
        raise refusal
    model = MobileNetV3(
        decode_arch_def([*([_definition(block)] for block in inner), [f"cn_r1_k1_s1_c{head.conv_channels}"]]),
        num_classes=head.num_classes,
        in_chans=family.in_channels,
        stem_size=stem.out_channels,
        fix_stem=True,
        num_features=head.hidden,
        head_bias=False,
        act_layer=nn.Hardswish,
        se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU, rd_round_fn=round_channels),
        drop_rate=head.dropout,
    )
    ours, theirs = network.state_dict(), model.state_dict()
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs.values()]:
        raise refusal
    model.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    if not _compute_the_same(network, model, family.input_shape(arch)):
        raise refusal
    return model.train(network.training)


def _compute_the_same(network: nn.Module, model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether two networks give the same logits for random images, as equal shapes could hide a difference."""
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    training = network.training
    with torch.no_grad():
        logits, expected = model.eval()(images), network.eval()(images)
    network.train(training)
    return bool((logits - expected).abs().max() <= 1e-4 * expected.abs().max())


def _definition(block: MBConv) -> str:
    """Return a block in the notation of timm's builder."""
    kind = "ds" if block.expand == 1 else "ir"
    expand = "" if block.expand == 1 else f"_e{block.expand}"
    se, skip = "_se0.25" if block.se else "", "" if block.residual else "_noskip"
    return f"{kind}_r1_k{block.kernel}_s{block.stride}{expand}_c{block.out_channels}{se}_n{_ACTS[block.act]}{skip}"
