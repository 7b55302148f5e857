import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.nn import functional as F  # noqa: N812

from export.formats.onnx import export_onnx
from ofa.cost.counted import count_macs
from supernets.blocks.tokens import PatchEmbed, TokenHead, TransformerBlock


def with_noise(module, scale=0.3):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.25)
    return module.eval()


def pair_vectors(state, name, grid):
    """Return the embedding of each pair of tokens `[tokens, tokens, 64]`, with distances clamped to 14."""
    vertical, horizontal = state[f"attn.{name}_positions.vertical"], state[f"attn.{name}_positions.horizontal"]

    def vector(a, b):
        if 0 in (a, b):
            return vertical[0] + horizontal[0]
        rows, columns = (b - 1) // grid - (a - 1) // grid, (b - 1) % grid - (a - 1) % grid
        return vertical[15 + max(-14, min(14, rows))] + horizontal[15 + max(-14, min(14, columns))]

    tokens = range(1 + grid * grid)
    return torch.stack([torch.stack([vector(a, b) for b in tokens]) for a in tokens])


def plain_transformer(block, state, x, grid):
    """Compute the paper's formula from the tensors of the built block, head by head."""
    normed = F.layer_norm(x, x.shape[-1:], state["norm1.weight"], state["norm1.bias"])
    width, weight, bias = 64 * block.heads, state["attn.qkv.weight"], state["attn.qkv.bias"]
    q, k, v = (normed @ weight[i::3].T + bias[i * width : (i + 1) * width] for i in range(3))
    of_keys, of_values = pair_vectors(state, "key", grid), pair_vectors(state, "value", grid)
    outs = []
    for head in range(block.heads):
        part = slice(64 * head, 64 * (head + 1))
        pairs = torch.einsum("bqd,bkd->bqk", q[..., part], k[..., part])
        scores = (pairs + torch.einsum("bqd,qkd->bqk", q[..., part], of_keys)) / 8
        weights = scores.softmax(dim=-1)
        outs.append(weights @ v[..., part] + torch.einsum("bqk,qkd->bqd", weights, of_values))
    x = x + torch.cat(outs, dim=-1) @ state["attn.proj.weight"].T + state["attn.proj.bias"]
    normed = F.layer_norm(x, x.shape[-1:], state["norm2.weight"], state["norm2.bias"])
    hidden = normed @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"]


@pytest.mark.parametrize("grid", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("block", [TransformerBlock(48, 1, 72), TransformerBlock(40, 3, 160)], ids=str)
def test_a_transformer_block_computes_its_formula(block, grid):
    """Grid 17 has distances beyond those of the tables."""
    module = with_noise(block.build())
    for batch in (1, 2):
        x = torch.randn(batch, *block.input_shape(grid), generator=torch.Generator().manual_seed(grid))
        with torch.no_grad():
            torch.testing.assert_close(
                module(x), plain_transformer(block, module.state_dict(), x, grid), rtol=1e-4, atol=1e-4
            )


def test_gradients_are_those_of_the_formula():
    block = TransformerBlock(40, 2, 80)
    module, x = with_noise(block.build()), torch.randn(2, *block.input_shape(3))
    leaves = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    module(x).square().sum().backward()
    plain_transformer(block, leaves, x, 3).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, leaves[name].grad, rtol=1e-3, atol=1e-3)


def test_fewer_heads_are_the_first_heads():
    """Leading rows of the weight compute the first heads; the bias is a plain prefix."""
    large, small = TransformerBlock(32, 3, 64).build(), TransformerBlock(32, 2, 64).build()
    nn.init.normal_(large.attn.qkv.bias)
    small.load_state_dict(
        {name: large.state_dict()[name][tuple(map(slice, t.shape))] for name, t in small.state_dict().items()}
    )
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        whole = (large.attn.qkv(x) - large.attn.qkv.bias).view(2, 5, 3, 192)
        part = (small.attn.qkv(x) - small.attn.qkv.bias).view(2, 5, 3, 128)
    torch.testing.assert_close(part, whole[..., :128], rtol=1e-4, atol=1e-5)
    assert torch.equal(small.attn.qkv.bias, large.attn.qkv.bias[: 3 * 128])


def test_patch_embedding_computes_its_formula():
    block = PatchEmbed(3, 24, patch=8, grid=4)
    module = with_noise(block.build())
    images = torch.randn(2, *block.input_shape(32))
    patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 16, 3 * 64)
    tokens = patches @ module.proj.weight.flatten(1).T + module.proj.bias
    plain = torch.cat([module.cls_token.expand(2, 1, 24), tokens], dim=1) + module.pos_embed
    torch.testing.assert_close(module(images), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [1, 2, 13, 14, 20])
def test_positions_are_resampled_to_other_grids(grid):
    module = with_noise(PatchEmbed(3, 24).build())
    positions = module.positions(grid)
    plain = resample_abs_pos_embed(module.pos_embed, [grid, grid], antialias=False)
    torch.testing.assert_close(positions, plain, rtol=1e-5, atol=1e-6)
    assert (positions is module.pos_embed) == (grid == 14)
    assert module(torch.zeros(1, 3, 16 * grid, 16 * grid)).shape == (1, 1 + grid * grid, 24)


def test_the_head_ignores_the_class_token():
    block = TokenHead(24, 10)
    module, tokens = with_noise(block.build()), torch.randn(2, *block.input_shape(3))
    normed = F.layer_norm(tokens, (24,), module.norm.weight, module.norm.bias)
    plain = normed[:, 1:].mean(dim=1) @ module.classifier.weight.T + module.classifier.bias
    torch.testing.assert_close(module(tokens), plain, rtol=1e-4, atol=1e-5)


def test_drop_path_is_active_in_training_only():
    module, x = with_noise(TransformerBlock(32, 1, 64).build()), torch.randn(1, 5, 32).expand(64, -1, -1)
    module.drop_path.drop_prob = 0.5
    assert len(module(x).detach().flatten(1).round(decimals=3).unique(dim=0)) == 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert len(module.train()(x).detach().flatten(1).round(decimals=3).unique(dim=0)) == 4  # 2 branches


@pytest.mark.parametrize("grid", [2, 14])
def test_relative_positions_cost_a_row_and_a_column_of_patches_per_token(grid):
    block, tokens = TransformerBlock(192, 3, 672), 1 + grid * grid
    linear = tokens * 192 * (4 * 192 + 2 * 672)
    attention = 2 * 3 * 64 * tokens * tokens
    positions = 3 * 64 * (4 * grid * grid * grid + tokens)
    assert count_macs(block.build().eval(), block.input_shape(grid)) == linear + attention + positions


@pytest.mark.parametrize("block", [PatchEmbed(3, 24), TransformerBlock(24, 2, 48), TokenHead(24, 10)], ids=str)
def test_blocks_export_to_onnx_for_any_batch(block, tmp_path):
    size = 64 if isinstance(block, PatchEmbed) else 4
    shape = block.input_shape(size)
    batches = [torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) for n in (1, 3)]
    result = export_onnx(with_noise(block.build()), shape, tmp_path / "block.onnx", images=batches)
    assert (result.n_images, result.max_abs_diff <= 1e-4) == (4, True)


def test_initialization_has_the_documented_scales():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [b.build() for b in (PatchEmbed(3, 96), TransformerBlock(96, 4, 384), TokenHead(96, 100))]
    for name, parameter in (pair for module in modules for pair in module.named_parameters()):
        if name.startswith("proj"):
            continue  # the convolution keeps torch's initialization
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif name.startswith("norm"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
