"""The blocks of AutoFormer, a transformer over image patches (arXiv 2107.00651, section 3; code: microsoft/Cream).

Tokens are `[batch, 1 + grid^2, embed_dim]`: the class token, then the patches of a square image row by row. Heads
always have 64 channels, so a smaller block has fewer heads. Parameters are shared as leading slices.
"""

import math
from dataclasses import dataclass

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional

from ofa.supernet.block import ChannelGroup
from supernets.blocks.convolutions import ImageBlock

HEAD_DIM = 64
_MAX_DISTANCE = 14  # in patches; relative positions are clamped to it
MLP_CHANNELS: ChannelGroup = (("mlp.fc1.weight", 0), ("mlp.fc1.bias", 0), ("mlp.fc2.weight", 1))
"""The hidden channels of a transformer block's MLP."""


@dataclass(frozen=True, repr=False)
class PatchEmbed(ImageBlock):
    """Tokens of an image: patches through a convolution, after a class token, plus absolute position embeddings.

    The embeddings are for `grid` patches per side, of `patch` pixels; they are resampled for other images.
    """

    embed_dim: int
    patch: int = 16
    grid: int = 14

    def build(self) -> nn.Module:
        """Return a module from `[batch, in_channels, size, size]` to `[batch, 1 + (size / patch)^2, embed_dim]`."""
        return _init(_PatchEmbed(self))


@dataclass(frozen=True)
class _TokenBlock:
    embed_dim: int

    def input_shape(self, size: int) -> tuple[int, ...]:
        """See `ofa.supernet.block.Block`; `size` is in patches."""
        return (size * size + 1, self.embed_dim)


@dataclass(frozen=True)
class TransformerBlock(_TokenBlock):
    """Self-attention with relative positions, then an MLP, each with a LayerNorm before it and a residual.

    Each of the heads has 64 channels whatever `embed_dim` is; `hidden` are the MLP's hidden channels.
    """

    heads: int
    hidden: int

    def build(self) -> nn.Module:
        """Return a module from `[batch, tokens, embed_dim]` to the same shape."""
        return _init(_TransformerBlock(self))

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the group of the MLP's hidden channels."""
        return (MLP_CHANNELS,)


@dataclass(frozen=True)
class TokenHead(_TokenBlock):
    """LayerNorm, the mean over the patch tokens (without the class token), classifier."""

    num_classes: int

    def build(self) -> nn.Module:
        """Return a module from `[batch, tokens, embed_dim]` to logits `[batch, num_classes]`."""
        return _init(_TokenHead(self))


class _PatchEmbed(nn.Module):
    def __init__(self, block: PatchEmbed) -> None:
        super().__init__()
        self.grid = block.grid
        self.proj = nn.Conv2d(block.in_channels, block.embed_dim, block.patch, block.patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, block.embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + block.grid**2, block.embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.proj(images)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + self.positions(int(patches.shape[-1]))

    def positions(self, grid: int) -> Tensor:
        """Return position embeddings `[1, 1 + grid^2, embed_dim]`, resampled by cubic interpolation if necessary."""
        if grid == self.grid:
            return self.pos_embed
        image = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2).contiguous()
        image = functional.interpolate(image, (grid, grid), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], image.flatten(2).transpose(1, 2)], dim=1)


class _TransformerBlock(nn.Module):
    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(block.embed_dim)
        self.attn = _Attention(block.embed_dim, block.heads)
        self.norm2 = nn.LayerNorm(block.embed_dim)
        self.mlp = Mlp(block.embed_dim, block.hidden)
        self.drop_path = DropPath()  # the trainer sets the probability

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return out


class _Attention(nn.Module):
    """Self-attention with relative positions on keys and values (arXiv 1803.02155), per row and per column."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = QkvLinear(embed_dim, 3 * HEAD_DIM * heads)
        self.key_positions = _RelativePositions()
        self.value_positions = _RelativePositions()
        self.proj = nn.Linear(HEAD_DIM * heads, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        length = int(tokens.shape[1])  # the tracing ONNX exporter gives a tensor
        grid = math.isqrt(length - 1)
        qkv = self.qkv(tokens).reshape(-1, length, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.reshape(3, -1, length, HEAD_DIM).unbind()  # each [batch * heads, tokens, 64]
        queries = queries * HEAD_DIM**-0.5
        scores = queries @ keys.transpose(1, 2) + self.key_positions.scores(queries, grid)
        weights = scores.softmax(dim=2)
        out = weights @ values + self.value_positions.mean(weights, grid)
        out = out.reshape(-1, self.heads, length, HEAD_DIM).transpose(1, 2)
        mixed: Tensor = self.proj(out.reshape(-1, length, self.heads * HEAD_DIM))
        return mixed


class QkvLinear(nn.Linear):
    """Compute queries, keys and values with one linear layer: `[..., in]` to `[..., 3 * width]`, all queries first.

    Row `3 * j + i` of the weight computes channel `j` of queries, keys or values (`i` = 0, 1, 2), so that fewer heads
    are leading rows. The bias is in the order of the output, so with fewer heads a part of it is added to other
    channels than in the largest network. Released checkpoints depend on this peculiarity of the official code.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return queries, keys and values `[..., 3 * width]` of tokens `[..., in]`."""
        weight = self.weight.reshape(-1, 3, self.in_features).transpose(0, 1).reshape(-1, self.in_features)
        return functional.linear(x, weight, self.bias)


class _RelativePositions(nn.Module):
    """An embedding of each pair of tokens: the sum of one for their vertical and one for their horizontal distance.

    Row 0 of each table is for pairs with the class token, row `15 + d` for patches at distance `d`. The embeddings of
    pairs are never materialized: sums over patches are taken over rows and over columns separately, which costs
    `2 * grid` products per token instead of `grid^2`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vertical = nn.Parameter(torch.empty(2 * _MAX_DISTANCE + 2, HEAD_DIM))
        self.horizontal = nn.Parameter(torch.empty(2 * _MAX_DISTANCE + 2, HEAD_DIM))

    def tables(self, grid: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of pairs with the class token `[64]`, of row and of column pairs `[grid, grid, 64]`."""
        position = torch.arange(grid, device=self.vertical.device)
        index = (position - position[:, None]).clamp(-_MAX_DISTANCE, _MAX_DISTANCE) + _MAX_DISTANCE + 1
        return self.vertical[0] + self.horizontal[0], self.vertical[index], self.horizontal[index]

    def scores(self, queries: Tensor, grid: int) -> Tensor:
        """Return the products `[n, tokens, tokens]` of queries `[n, tokens, 64]` and the embeddings of pairs."""
        class_pair, row_pair, column_pair = self.tables(grid)
        to_class = queries @ class_pair[:, None]
        patches = queries[:, 1:].reshape(-1, grid, grid, HEAD_DIM)
        to_row = torch.einsum("nijd,ird->nijr", patches, row_pair)
        to_column = torch.einsum("nijd,jcd->nijc", patches, column_pair)
        to_patch = (to_row[..., None] + to_column[..., None, :]).reshape(-1, grid**2, grid**2)
        from_patch = torch.cat([to_class[:, 1:], to_patch], dim=2)
        return torch.cat([to_class[:, :1].expand(-1, -1, 1 + grid**2), from_patch], dim=1)

    def mean(self, weights: Tensor, grid: int) -> Tensor:
        """Return the mean `[n, tokens, 64]` of the embeddings of pairs, weighted by `[n, tokens, tokens]`."""
        class_pair, row_pair, column_pair = self.tables(grid)
        patches = weights[:, 1:, 1:].reshape(-1, grid, grid, grid, grid)
        rows = torch.einsum("nijr,ird->nijd", patches.sum(dim=4), row_pair)
        columns = torch.einsum("nijc,jcd->nijd", patches.sum(dim=3), column_pair)
        mean = (rows + columns).reshape(-1, grid**2, HEAD_DIM) + weights[:, 1:, :1] * class_pair
        return torch.cat([weights[:, :1].sum(dim=2, keepdim=True) * class_pair, mean], dim=1)


class _TokenHead(nn.Module):
    def __init__(self, block: TokenHead) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(block.embed_dim)
        self.classifier = nn.Linear(block.embed_dim, block.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.norm(tokens[:, 1:]).mean(dim=1))
        return logits


def _init(module: nn.Module) -> nn.Module:
    """Initialize in place as the paper: linear layers, class token and positions truncated normal 0.02, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, _PatchEmbed | _RelativePositions):
            for parameter in layer.parameters(recurse=False):
                nn.init.trunc_normal_(parameter, std=0.02)
    return module
