"""The blocks of convolutional families, made of timm's layers.

Weights start from He et al.'s normal distribution (arXiv 1502.01852) over each layer's fan-out, as in once-for-all.
"""

import math
from dataclasses import dataclass, field, fields

from timm.layers import ConvNormAct, SqueezeExcite, create_act_layer, make_divisible
from torch import Tensor, nn

from ofa.supernet.block import ChannelGroup


def scaled(channels: float, width_mult: float = 1.0) -> int:
    """Return channels times a width multiplier, rounded to a multiple of 8 as once-for-all and timm do."""
    return int(make_divisible(channels * width_mult, 8))


@dataclass(frozen=True, repr=False)
class ImageBlock:
    """Base of the blocks that take a feature map `[batch, in_channels, h, w]`.

    The repr of a block is its key in latency tables. A field with `repr=False` is in it only where it differs from its
    default, so that tables measured before the field was added still match.
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
    """A convolution, BatchNorm and an activation, padded so that only the stride changes the size.

    Attributes:
        residual: add the input to the output; requires equal channels and stride 1.
    """

    out_channels: int
    kernel: int = 3
    stride: int = 1
    act: str = "hard_swish"
    residual: bool = field(default=False, repr=False)
    norm_eps: float = field(default=1e-5, repr=False)

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        layer = _ResidualConvNorm if self.residual else ConvNormAct
        channels = (self.in_channels, self.out_channels)
        return he_init(_conv_norm(*channels, self.kernel, self.stride, act=self.act, eps=self.norm_eps, layer=layer))


@dataclass(frozen=True, repr=False)
class MaxPool(ImageBlock):
    """Max pooling over 3x3 windows with stride 2, as after the stem of a ResNet."""

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to `[batch, in_channels, h / 2, w / 2]`."""
        return nn.MaxPool2d(3, stride=2, padding=1)


@dataclass(frozen=True, repr=False)
class MBConv(ImageBlock):
    """Inverted residual: expand 1x1, depthwise, squeeze-and-excite, project 1x1 (arXiv 1801.04381, 1905.02244).

    Attributes:
        expand: ratio of hidden to input channels, which are `scaled(in_channels * expand)`; 1 omits the expansion.
        se: squeeze-and-excite with a quarter of the hidden channels.
        residual: add a shortcut: the input, average-pooled where the stride is above 1 and through a 1x1 convolution
            where the numbers of channels differ.
        spare_shortcut: hold the shortcut's 1x1 convolution even where it is not used, for smaller blocks to share.
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
        """Return a module from `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_InvertedResidual(self))

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the group of the expanded channels and that of the channels inside squeeze-and-excite."""
        groups: list[ChannelGroup] = []
        if self.expand != 1:
            produced = (*_conv_norm_channels("expand"), *_conv_norm_channels("depthwise"))
            gate = (("se.fc1.weight", 1), ("se.fc2.weight", 0), ("se.fc2.bias", 0)) if self.se else ()
            groups.append((*produced, *gate, ("project.conv.weight", 1)))
        if self.se:
            groups.append((("se.fc1.weight", 0), ("se.fc1.bias", 0), ("se.fc2.weight", 1)))
        return tuple(groups)


@dataclass(frozen=True, repr=False)
class Bottleneck(ImageBlock):
    """ResNet-D's bottleneck: 1x1, 3x3 with the stride, 1x1, each with BatchNorm (arXiv 1512.03385, 1812.01187).

    Attributes:
        expand: ratio of hidden to output channels, which are `scaled(round(out_channels * expand))`.
        downsample: the shortcut is average pooling by the stride, a 1x1 convolution and BatchNorm; otherwise the input.
    """

    out_channels: int
    stride: int
    expand: float
    downsample: bool
    act: str = "relu"

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return he_init(_Bottleneck(self))

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the groups of the channels between the first and second, and the second and third convolution."""
        return tuple(
            (*_conv_norm_channels(producer), (f"{consumer}.conv.weight", 1))
            for producer, consumer in (("conv1", "conv2"), ("conv2", "conv3"))
        )


@dataclass(frozen=True, repr=False)
class Head(ImageBlock):
    """1x1 convolution, pooling, a hidden layer, dropout, classifier, as in MobileNetV3 (arXiv 1905.02244, 5.1).

    Attributes:
        conv_channels: channels of the 1x1 convolution before the pooling; None omits it.
        hidden: channels of the layer after the pooling; None omits it.
        act: activation of both.
    """

    conv_channels: int | None
    hidden: int | None
    num_classes: int
    dropout: float = 0.0
    act: str = field(default="hard_swish", repr=False)
    norm_eps: float = field(default=1e-5, repr=False)

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to logits `[batch, num_classes]`."""
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

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the groups of the convolution's and the hidden layer's output channels."""
        groups: list[ChannelGroup] = []
        if self.conv_channels is not None:
            consumer = "classifier.weight" if self.hidden is None else "hidden.weight"
            groups.append((*_conv_norm_channels("conv"), (consumer, 1)))
        if self.hidden is not None:
            groups.append((("hidden.weight", 0), ("classifier.weight", 1)))
        return tuple(groups)


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
    *,
    groups: int = 1,
    act: str | None,
    eps: float = 1e-5,
    layer: type[nn.Module] = ConvNormAct,
) -> nn.Module:
    options = {"groups": groups, "apply_act": act is not None, "act_layer": act, "norm_kwargs": {"eps": eps}}
    return layer(in_channels, out_channels, kernel, stride, **options)


def _conv_norm_channels(name: str) -> ChannelGroup:
    """Return the entries of the output channels of a `_conv_norm`, to be completed by their consumers."""
    tensors = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    return tuple((f"{name}.{tensor}", 0) for tensor in tensors)


def he_init(module: nn.Module) -> nn.Module:
    """Initialize in place: convolutions He normal over their fan-out, linear layers normal 0.01, biases 0."""
    if any(parameter.is_meta for parameter in module.parameters()):
        return module  # there are no values, and torch would take most of a skeleton's time to draw them
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module
