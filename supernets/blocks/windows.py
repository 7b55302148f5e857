"""The blocks of windowed transformers, after Swin (arXiv 2103.14030) and its searched form S3 (arXiv 2111.14725).

Blocks pass feature maps `[batch, channels, h, w]` to each other, as convolutions do. In channels-last memory these are
the same memory as the tokens `[batch, h, w, channels]` that the blocks work on. Maps may have any size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from timm.layers import DropPath, Mlp, get_act_layer, trunc_normal_
from torch import Tensor, nn

from ofa.core.errors import FamilyError
from ofa.supernet.block import ChannelGroup
from supernets.blocks.convolutions import ImageBlock, he_init
from supernets.blocks.partition import Partition, window_partition
from supernets.blocks.tokens import MLP_CHANNELS


@dataclass(frozen=True, repr=False)
class PatchEmbed(ImageBlock):
    """Embed patches of the image as tokens: a convolution whose stride is its kernel, then LayerNorm."""

    embed_dim: int
    patch: int = 4

    def build(self) -> nn.Module:
        """Return a module: `[batch, in_channels, h, w]` to `[batch, embed_dim, h / patch, w / patch]`, rounded up."""
        return token_init(_PatchEmbed(self))


@dataclass(frozen=True, repr=False)
class PatchMerging(ImageBlock):
    """Merge each 2 by 2 tokens into one: LayerNorm over the four, then a linear layer.

    The four values of a channel are adjacent, so that fewer channels are leading columns. In Swin the channels of one
    token are adjacent: its weights fit after a permutation.
    """

    out_channels: int

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to `[batch, out_channels, h / 2, w / 2]`, rounded up."""
        return token_init(_PatchMerging(self))


@dataclass(frozen=True)
class WindowBlock:
    """A transformer block with attention inside windows and a learned bias per relative position.

    A map is partitioned into as few windows as possible, all of one size of at most `window` by `window` tokens: a map
    of 14 into 2 by 2 windows of 7, a map of 9 into 2 by 2 windows of 5 with one masked row and column of padding; a map
    of 7 or less is one window. Smaller windows use the center of the bias table.

    Attention has `qkv_dim` channels, each head `qkv_dim / heads`. Row `3 * j + i` of the fused layer computes channel j
    of query, key or value (i = 0, 1, 2), so that a smaller `qkv_dim` is leading rows. Where the number of heads changes
    and `qkv_dim` does not, a channel moves to another head; networks with different heads share it all the same.

    Attributes:
        heads: number of attention heads; must divide `qkv_dim`.
        mlp_ratio: ratio of the MLP's hidden channels to `embed_dim`.
        shift: shift the windows by half a window where there are several.
        act: activation of the MLP.
    """

    embed_dim: int
    heads: int
    qkv_dim: int
    window: int
    mlp_ratio: float
    shift: bool = False
    act: str = "gelu"

    def __post_init__(self) -> None:
        if self.qkv_dim % self.heads:
            raise FamilyError(
                f"qkv_dim {self.qkv_dim} cannot be split among heads {self.heads}; "
                "give values of qkv_dim that every number of heads divides"
            )

    def build(self) -> nn.Module:
        """Return a module from `[batch, embed_dim, h, w]` to the same shape."""
        return token_init(_WindowBlock(self))

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.supernet.block.Block`."""
        return (self.embed_dim, size, size)

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the group of the MLP's hidden channels."""
        return (MLP_CHANNELS,)


@dataclass(frozen=True, repr=False)
class TokenHead(ImageBlock):
    """LayerNorm, mean over the tokens, dropout, classifier."""

    num_classes: int
    dropout: float = 0.0

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, h, w]` to logits `[batch, num_classes]`."""
        return token_init(_TokenHead(self))


class _PatchEmbed(nn.Module):
    def __init__(self, block: PatchEmbed) -> None:
        super().__init__()
        self.patch = block.patch
        self.conv = nn.Conv2d(block.in_channels, block.embed_dim, block.patch, block.patch)
        self.norm = nn.LayerNorm(block.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return _to_map(self.norm(_to_tokens(self.conv(_extend(x, self.patch)))))


class _PatchMerging(nn.Module):
    def __init__(self, block: PatchMerging) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * block.in_channels)
        self.reduction = nn.Linear(4 * block.in_channels, block.out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return _to_map(self.reduction(self.norm(_to_tokens(nn.functional.pixel_unshuffle(_extend(x, 2), 2)))))


class _WindowBlock(nn.Module):
    def __init__(self, block: WindowBlock) -> None:
        super().__init__()
        hidden, act = int(block.embed_dim * block.mlp_ratio), get_act_layer(block.act) or nn.Identity
        self.norm1 = nn.LayerNorm(block.embed_dim)
        self.attention = _WindowAttention(block)
        self.norm2 = nn.LayerNorm(block.embed_dim)
        self.mlp = Mlp(block.embed_dim, hidden, act_layer=act)
        self.drop_path = DropPath()  # the trainer sets the probability

    def forward(self, x: Tensor) -> Tensor:
        tokens = _to_tokens(x)
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return _to_map(tokens)


class _WindowAttention(nn.Module):
    def __init__(self, block: WindowBlock) -> None:
        super().__init__()
        self.heads, self.head_dim = block.heads, block.qkv_dim // block.heads
        self.window, self.shift = block.window, block.shift
        self.qkv = nn.Linear(block.embed_dim, 3 * block.qkv_dim)
        self.bias_table = nn.Parameter(torch.empty(2 * block.window - 1, 2 * block.window - 1, block.heads))
        self.proj = nn.Linear(block.qkv_dim, block.embed_dim)
        _trunc_normal(self.bias_table)

    def forward(self, tokens: Tensor) -> Tensor:
        height, width = _numbers(tokens.shape[1:3])
        part = window_partition(height, width, self.window, self.shift, tokens.device)
        qkv = self.qkv(tokens).reshape(-1, height * width, self.qkv.out_features)
        if part.order is not None:
            qkv = qkv.index_select(1, part.order)
        qkv = qkv.reshape(-1, part.windows, part.tokens, self.heads, self.head_dim, 3)
        q, k, v = qkv.permute(5, 0, 1, 3, 2, 4).contiguous().unbind()  # each [batch, windows, heads, tokens, head_dim]
        weights = ((q * self.head_dim**-0.5) @ k.transpose(-2, -1) + self._bias(part)).softmax(-1)
        out = (weights @ v).transpose(2, 3).reshape(-1, part.windows * part.tokens, self.proj.in_features)
        if part.inverse is not None:
            out = out.index_select(1, part.inverse)
        projected: Tensor = self.proj(out.reshape(-1, height, width, self.proj.in_features))
        return projected

    def _bias(self, part: Partition) -> Tensor:
        """Return `[heads, tokens, tokens]`, or `[windows, heads, tokens, tokens]` where some pairs are masked."""
        center = 2 * self.window * (self.window - 1)  # the row of the flattened table for two equal positions
        offsets = part.position[:, None] - part.position + center
        bias = self.bias_table.flatten(0, 1)[offsets].permute(2, 0, 1)
        if part.region is None:
            return bias
        return bias.masked_fill(part.region[:, None, :, None] != part.region[:, None, None, :], -torch.inf)


class _TokenHead(nn.Module):
    def __init__(self, block: TokenHead) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(block.in_channels)
        self.dropout = nn.Dropout(block.dropout)
        self.classifier = nn.Linear(block.in_channels, block.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.norm(_to_tokens(x)).mean((1, 2))))
        return logits


def token_init(module: nn.Module) -> nn.Module:
    """Initialize in place: convolutions as `he_init` does, linear layers truncated normal 0.02, biases 0."""
    he_init(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            _trunc_normal(layer.weight)
    return module


def _trunc_normal(weight: Tensor) -> None:
    if not weight.is_meta:  # see `he_init`
        trunc_normal_(weight, std=0.02)


def _to_tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _to_map(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)


def _extend(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of a map until its sides are multiples."""
    for dim, length in enumerate(_numbers(x.shape[2:]), start=2):
        if length % multiple:
            lines = torch.arange(length + -length % multiple, device=x.device).clamp(max=length - 1)
            x = x.index_select(dim, lines)
    return x


def _numbers(shape: Iterable[int]) -> tuple[int, ...]:
    """Return sizes as plain numbers, also where the tracing ONNX exporter gives tensors."""
    return tuple(int(size) for size in shape)
