"""The blocks of convolutional families, each defined once.

Layers come from timm. Weights start from the normal distribution of He et al. (arXiv 1502.01852) over
each layer's outgoing connections, as once-for-all does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from timm.layers import ConvNormAct, SqueezeExcite, create_act_layer, make_divisible
from torch import Tensor, nn


def scaled(channels: float, width_mult: float = 1.0) -> int:
    """Channels times a width multiplier, rounded to a multiple of 8 as once-for-all and timm do."""
    return int(make_divisible(channels * width_mult, 8))


@dataclass(frozen=True)
class ConvNorm:
    """A convolution, BatchNorm and activation; padding keeps size / stride."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    act: str = "hard_swish"

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_conv_norm(self.in_channels, self.out_channels, self.kernel, self.stride, act=self.act))

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.block.Block`."""
        return (self.in_channels, size, size)


@dataclass(frozen=True)
class MBConv:
    """Inverted residual: expand 1x1, depthwise, squeeze-and-excite, project 1x1 (arXiv 1801.04381, 1905.02244).

    Attributes:
        expand: hidden channels are `scaled(in_channels * expand)`; 1 leaves the expansion out.
        se: squeeze-and-excite with a quarter of the hidden channels.
        residual: adds the input; wants equal channels and stride 1.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    expand: float
    se: bool
    act: str
    residual: bool

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_InvertedResidual(self))

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.block.Block`."""
        return (self.in_channels, size, size)


@dataclass(frozen=True)
class Head:
    """MobileNetV3's head: 1x1 convolution, pooling, a hidden layer, dropout, classifier (arXiv 1905.02244, 5.1)."""

    in_channels: int
    conv_channels: int
    hidden: int
    num_classes: int
    dropout: float = 0.0

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to logits `[batch, num_classes]`."""
        head = nn.Sequential()
        head.add_module("conv", _conv_norm(self.in_channels, self.conv_channels, 1, act="hard_swish"))
        head.add_module("pool", nn.AdaptiveAvgPool2d(1))
        head.add_module("hidden", nn.Conv2d(self.conv_channels, self.hidden, 1, bias=False))
        head.add_module("act", create_act_layer("hard_swish", inplace=True))
        head.add_module("flatten", nn.Flatten())
        head.add_module("dropout", nn.Dropout(self.dropout))
        head.add_module("classifier", nn.Linear(self.hidden, self.num_classes))
        return he_init(head)

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.block.Block`."""
        return (self.in_channels, size, size)


class _InvertedResidual(nn.Module):
    def __init__(self, block: MBConv) -> None:
        super().__init__()
        hidden = scaled(block.in_channels * block.expand)
        self.residual = block.residual
        if block.expand != 1:
            self.expand = _conv_norm(block.in_channels, hidden, 1, act=block.act)
        self.depthwise = _conv_norm(hidden, hidden, block.kernel, block.stride, groups=hidden, act=block.act)
        if block.se:
            self.se = SqueezeExcite(hidden, rd_channels=scaled(hidden // 4), gate_layer="hard_sigmoid")
        self.project = _conv_norm(hidden, block.out_channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.children():
            out = layer(out)
        return x + out if self.residual else out


def _conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: str | None = None
) -> nn.Module:
    return ConvNormAct(
        in_channels, out_channels, kernel, stride, groups=groups, apply_act=act is not None, act_layer=act
    )


def he_init(module: nn.Module) -> nn.Module:
    """Initialises in place: convolutions He normal over outgoing connections, linear layers normal 0.01, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
