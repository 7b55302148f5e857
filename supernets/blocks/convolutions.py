"""The blocks of convolutional families, each defined once.

Layers come from timm. Weights start from the normal distribution of He et al. (arXiv 1502.01852) over
each layer's outgoing connections, as once-for-all does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from timm.layers import ConvNormAct, SqueezeExcite, create_act_layer, make_divisible
from torch import Tensor, nn


def scaled(channels: float, width_mult: float = 1.0) -> int:
    """Channels times a width multiplier, rounded to a multiple of 8 as once-for-all and timm do."""
    return int(make_divisible(channels * width_mult, 8))


@dataclass(frozen=True, repr=False)
class ImageBlock:
    """What all blocks here share. A field with `repr=False` shows only where it differs from its default.

    So a field can be added and latency tables measured before, whose rows have the old text, still fit.
    """

    in_channels: int

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.supernet.block.Block`."""
        return (self.in_channels, size, size)

    def __repr__(self) -> str:
        shown = [f.name for f in fields(self) if f.repr or getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


@dataclass(frozen=True, repr=False)
class ConvNorm(ImageBlock):
    """A convolution, BatchNorm and activation; padding keeps size / stride.

    Attributes:
        residual: adds the input; wants equal channels and stride 1.
        norm_eps: BatchNorm's epsilon.
    """

    out_channels: int
    kernel: int = 3
    stride: int = 1
    act: str = "hard_swish"
    residual: bool = field(default=False, repr=False)
    norm_eps: float = field(default=1e-5, repr=False)

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        layer = _ResidualConvNorm if self.residual else ConvNormAct
        channels = (self.in_channels, self.out_channels)
        return he_init(_conv_norm(*channels, self.kernel, self.stride, act=self.act, eps=self.norm_eps, layer=layer))


@dataclass(frozen=True, repr=False)
class MaxPool(ImageBlock):
    """The maximum over 3x3 windows with stride 2, as after the stem of a ResNet."""

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, in_channels, h / 2, w / 2]`."""
        return nn.MaxPool2d(3, stride=2, padding=1)


@dataclass(frozen=True, repr=False)
class MBConv(ImageBlock):
    """Inverted residual: expand 1x1, depthwise, squeeze-and-excite, project 1x1 (arXiv 1801.04381, 1905.02244).

    Attributes:
        expand: hidden channels are `scaled(in_channels * expand)`; 1 leaves the expansion out.
        se: squeeze-and-excite with a quarter of the hidden channels.
        residual: adds the input; where the stride is above 1, averaged over its windows; where channels differ, after
            a 1x1 convolution.
        norm_eps: BatchNorm's epsilon.
        spare_shortcut: holds the shortcut's 1x1 convolution even if channels are equal, for other blocks to share.
    """

    out_channels: int
    kernel: int
    stride: int
    expand: float
    se: bool
    act: str
    residual: bool
    norm_eps: float = field(default=1e-5, repr=False)
    spare_shortcut: bool = field(default=False, repr=False)

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_InvertedResidual(self))


@dataclass(frozen=True, repr=False)
class Bottleneck(ImageBlock):
    """ResNet-D's bottleneck: 1x1, 3x3 with the stride, 1x1, each with BatchNorm (arXiv 1512.03385, 1812.01187).

    Attributes:
        expand: hidden channels are `scaled(round(out_channels * expand))`.
        downsample: the shortcut is an average over windows of the stride, a 1x1 convolution and BatchNorm;
            without, the input itself.
    """

    out_channels: int
    stride: int
    expand: float
    downsample: bool
    act: str = "relu"

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_Bottleneck(self))


@dataclass(frozen=True, repr=False)
class Head(ImageBlock):
    """1x1 convolution, pooling, a hidden layer, dropout, classifier, as in MobileNetV3 (arXiv 1905.02244, 5.1).

    Attributes:
        conv_channels: of the 1x1 convolution before the pooling; None leaves it out.
        hidden: channels of the layer after the pooling; None leaves it out.
        act: of both.
        norm_eps: BatchNorm's epsilon.
    """

    conv_channels: int | None
    hidden: int | None
    num_classes: int
    dropout: float = 0.0
    act: str = field(default="hard_swish", repr=False)
    norm_eps: float = field(default=1e-5, repr=False)

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to logits `[batch, num_classes]`."""
        head, channels = nn.Sequential(), self.in_channels
        if self.conv_channels is not None:
            head.add_module("conv", _conv_norm(channels, self.conv_channels, 1, act=self.act, eps=self.norm_eps))
            channels = self.conv_channels
        head.add_module("pool", nn.AdaptiveAvgPool2d(1))
        if self.hidden is not None:
            head.add_module("hidden", nn.Conv2d(channels, self.hidden, 1, bias=False))
            head.add_module("act", create_act_layer(self.act, inplace=True))
            channels = self.hidden
        head.add_module("flatten", nn.Flatten())
        head.add_module("dropout", nn.Dropout(self.dropout))
        head.add_module("classifier", nn.Linear(channels, self.num_classes))
        return he_init(head)


class _ResidualConvNorm(ConvNormAct):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]  # timm's is not typed
        return out


class _InvertedResidual(nn.Module):
    def __init__(self, block: MBConv) -> None:
        super().__init__()
        hidden, act, eps = scaled(block.in_channels * block.expand), block.act, block.norm_eps
        self.residual = block.residual
        self.expand: nn.Module = nn.Identity()
        if block.expand != 1:
            self.expand = _conv_norm(block.in_channels, hidden, 1, act=act, eps=eps)
        self.depthwise = _conv_norm(hidden, hidden, block.kernel, block.stride, groups=hidden, act=act, eps=eps)
        self.se: nn.Module = nn.Identity()
        if block.se:
            self.se = SqueezeExcite(hidden, rd_channels=scaled(hidden // 4), gate_layer="hard_sigmoid")
        self.project = _conv_norm(hidden, block.out_channels, 1, act=None, eps=eps)
        self.same_shape = block.stride == 1 and block.in_channels == block.out_channels
        if block.residual and (block.spare_shortcut or not self.same_shape):
            project = block.spare_shortcut or block.in_channels != block.out_channels
            self.shortcut = _shortcut(block.in_channels, block.out_channels, block.stride, project, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        if not self.residual:
            return out
        return out + (x if self.same_shape else self.shortcut(x))


class _Bottleneck(nn.Module):
    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        hidden = scaled(round(block.out_channels * block.expand))
        self.conv1 = _conv_norm(block.in_channels, hidden, 1, act=block.act)
        self.conv2 = _conv_norm(hidden, hidden, 3, block.stride, act=block.act)
        self.conv3 = _conv_norm(hidden, block.out_channels, 1, act=None)
        nn.init.zeros_(self.conv3.get_parameter("bn.weight"))  # a block starts as its shortcut (arXiv 1706.02677, 5.1)
        self.shortcut: nn.Module = nn.Identity()
        if block.downsample:
            self.shortcut = _shortcut(block.in_channels, block.out_channels, block.stride, project=True, norm=True)
        self.act = create_act_layer(block.act, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))
        return out


def _shortcut(in_channels: int, out_channels: int, stride: int, project: bool, norm: bool) -> nn.Sequential:
    shortcut = nn.Sequential()
    if stride > 1:
        shortcut.add_module("pool", nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
    if project:
        shortcut.add_module("conv", nn.Conv2d(in_channels, out_channels, 1, bias=False))
    if norm:
        shortcut.add_module("bn", nn.BatchNorm2d(out_channels))
    return shortcut


def _conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: str | None = None,
    eps: float = 1e-5,
    layer: type[nn.Module] = ConvNormAct,
) -> nn.Module:
    return layer(
        in_channels,
        out_channels,
        kernel,
        stride,
        groups=groups,
        apply_act=act is not None,
        act_layer=act,
        norm_kwargs={"eps": eps},
    )


def he_init(module: nn.Module) -> nn.Module:
    """Initializes in place: convolutions He normal over outgoing connections, linear layers normal 0.01, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
