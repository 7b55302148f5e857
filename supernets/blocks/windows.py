"""The blocks of windowed transformers: patch embedding, attention in windows, patch merging, head.

After Swin (arXiv 2103.14030) and its searched form S3 (arXiv 2111.14725). Blocks pass feature maps
`[batch, channels, h, w]` to each other, as convolutions do; in channels-last memory the tokens
`[batch, h, w, channels]` that they work on are the same memory. Maps of any size are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath, Mlp, get_act_layer, trunc_normal_
from torch import Tensor, nn

from ofa.core.errors import FamilyError
from supernets.blocks.convolutions import ImageBlock, he_init


@dataclass(frozen=True, repr=False)
class PatchEmbed(ImageBlock):
    """Patches of the image become tokens: a convolution as wide as its stride, then LayerNorm."""

    embed_dim: int
    patch: int = 4

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, embed_dim, h / patch, w / patch]`, rounded up."""
        return token_init(_PatchEmbed(self))


@dataclass(frozen=True, repr=False)
class PatchMerging(ImageBlock):
    """Each 2 by 2 tokens become one: LayerNorm over the four, then a linear layer.

    The four values of a channel are neighbors, so that fewer channels are leading columns. Swin has the channels
    of one token together instead: its weights fit after a permutation.
    """

    out_channels: int

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to `[batch, out_channels, h / 2, w / 2]`, rounded up."""
        return token_init(_PatchMerging(self))


@dataclass(frozen=True)
class WindowBlock:
    """A transformer block whose attention stays inside windows, with a learned bias per relative position.

    A map is cut into as few windows as fit, all of one size of at most `window` by `window` tokens: a map of 14 into
    2 by 2 windows of 7, a map of 9 into 2 by 2 windows of 5 with one row and column of padding that no token sees,
    a map of 7 or less is one window. Smaller windows use the middle of the table of biases.

    Attention is `qkv_dim` wide, each head `qkv_dim / heads`. Row `3 * j + i` of the fused layer is channel j of query,
    key or value (i = 0, 1, 2), so a smaller `qkv_dim` is leading rows. If head counts change while `qkv_dim` stays,
    a channel moves to another head; networks with different head counts share it all the same.

    Attributes:
        embed_dim: channels in and out.
        heads: of the attention; must divide `qkv_dim`.
        qkv_dim: channels of query, key and value, all heads together.
        window: largest height and width of a window in tokens.
        mlp_ratio: hidden to embedding dimension.
        shift: windows are shifted by half a window where there are several.
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
        """The module: `[batch, embed_dim, h, w]` to the same shape."""
        return token_init(_WindowBlock(self))

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.supernet.block.Block`."""
        return (self.embed_dim, size, size)


@dataclass(frozen=True, repr=False)
class TokenHead(ImageBlock):
    """LayerNorm, mean over the tokens, dropout, classifier."""

    num_classes: int
    dropout: float = 0.0

    def build(self) -> nn.Module:
        """The module: `[batch, in_channels, h, w]` to logits `[batch, num_classes]`."""
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
        self.norm1 = nn.LayerNorm(block.embed_dim)
        self.attention = _WindowAttention(block)
        self.norm2 = nn.LayerNorm(block.embed_dim)
        self.mlp = Mlp(
            block.embed_dim, int(block.embed_dim * block.mlp_ratio), act_layer=get_act_layer(block.act) or nn.Identity
        )
        self.drop_path = DropPath()  # set in training

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
        trunc_normal_(self.bias_table, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        height, width = _numbers(tokens.shape[1:3])
        cut = _cut(height, width, self.window, self.shift, tokens.device)
        qkv = self.qkv(tokens).reshape(-1, height * width, self.qkv.out_features)
        if cut.order is not None:
            qkv = qkv.index_select(1, cut.order)
        qkv = qkv.reshape(-1, cut.windows, cut.tokens, self.heads, self.head_dim, 3)
        q, k, v = qkv.permute(5, 0, 1, 3, 2, 4).contiguous().unbind()  # each [batch, windows, heads, tokens, head_dim]
        weights = ((q * self.head_dim**-0.5) @ k.transpose(-2, -1) + self._bias(cut)).softmax(-1)
        out = (weights @ v).transpose(2, 3).reshape(-1, cut.windows * cut.tokens, self.proj.in_features)
        if cut.back is not None:
            out = out.index_select(1, cut.back)
        projected: Tensor = self.proj(out.reshape(-1, height, width, self.proj.in_features))
        return projected

    def _bias(self, cut: _Cut) -> Tensor:
        """`[heads, tokens, tokens]`, or `[windows, heads, tokens, tokens]` where tokens may not see each other."""
        middle = 2 * self.window * (self.window - 1)  # the row of the table for two equal positions
        offsets = cut.position[:, None] - cut.position + middle
        bias = self.bias_table.flatten(0, 1)[offsets].permute(2, 0, 1)
        if cut.region is None:
            return bias
        return bias.masked_fill(cut.region[:, None, :, None] != cut.region[:, None, None, :], -torch.inf)


class _TokenHead(nn.Module):
    def __init__(self, block: TokenHead) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(block.in_channels)
        self.dropout = nn.Dropout(block.dropout)
        self.classifier = nn.Linear(block.in_channels, block.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.norm(_to_tokens(x)).mean((1, 2))))
        return logits


@dataclass(frozen=True, eq=False)
class _Cut:
    """How a map is cut into windows.

    Attributes:
        windows: how many.
        tokens: in each.
        position: `[tokens]`; differences are rows of the table of biases, counted from its middle.
        order: `[windows * tokens]`, which token of the map each one is; None: they are in the map's order.
        back: `[height * width]`, the inverse; None where `order` is.
        region: `[windows, tokens]`; tokens see those of their own region: what the shift brings together
            from opposite edges, and padding, are regions of their own. None: one region.
    """

    windows: int
    tokens: int
    position: Tensor
    order: Tensor | None
    back: Tensor | None
    region: Tensor | None


@lru_cache(maxsize=256)
def _cut(height: int, width: int, window: int, shift: bool, device: torch.device) -> _Cut:
    (rows, high, down), (columns, wide, right) = (_cut_line(length, window, shift) for length in (height, width))
    y = np.roll(np.arange(rows * high), -down)  # of the map's rows and those of padding, in the order of the windows
    x = np.roll(np.arange(columns * wide), -right)

    def by_window(grid: NDArray[np.int64]) -> NDArray[np.int64]:
        return grid.reshape(rows, high, columns, wide).swapaxes(1, 2).reshape(rows * columns, high * wide)

    token = by_window(np.where((y < height)[:, None] & (x < width), np.add.outer(y * width, x), -1)).ravel()
    region = by_window(np.add.outer(3 * _regions(y, height, down), _regions(x, width, right)))
    moved = len(token) != height * width or (np.diff(token) != 1).any()
    with torch.inference_mode(False):  # these are kept, and may be used in training next
        return _Cut(
            windows=rows * columns,
            tokens=high * wide,
            position=_tensor(np.add.outer(np.arange(high) * (2 * window - 1), np.arange(wide)).ravel(), device),
            order=_tensor(token.clip(min=0), device) if moved else None,  # any token serves as padding: none sees it
            back=_tensor(token.argsort(kind="stable")[-height * width :], device) if moved else None,
            region=_tensor(region, device) if (region != region[:, :1]).any() else None,
        )


def _cut_line(length: int, window: int, shift: bool) -> tuple[int, int, int]:
    """For one side of a map: number of windows, their length, their shift."""
    number = -(-length // window)
    size = -(-length // number)
    return number, size, size // 2 if shift and number > 1 else 0


def _regions(line: NDArray[np.int64], length: int, shift: int) -> NDArray[np.int64]:
    """For one side of a map: 0 in the middle, 1 for what the shift brought around the edge, 2 for padding."""
    return np.where(line < shift, 1, np.where(line < length, 0, 2))


def _tensor(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def token_init(module: nn.Module) -> nn.Module:
    """Initializes in place: convolutions as `he_init`, linear layers truncated normal 0.02, biases 0."""
    he_init(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            trunc_normal_(layer.weight, std=0.02)
    return module


def _to_tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _to_map(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)


def _extend(x: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column of a map until its sides are multiples."""
    for dim, length in enumerate(_numbers(x.shape[2:]), start=2):
        if length % multiple:
            lines = torch.arange(length + -length % multiple, device=x.device).clamp(max=length - 1)
            x = x.index_select(dim, lines)
    return x


def _numbers(shape: Iterable[int]) -> tuple[int, ...]:
    """Sizes as plain numbers, also where the tracing ONNX exporter gives tensors."""
    return tuple(int(size) for size in shape)
