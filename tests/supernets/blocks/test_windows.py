"""Window attention compared with a loop over single tokens; the other blocks with their formulas."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import ofa
from export.formats.onnx import export_onnx
from ofa.core.errors import FamilyError
from ofa.cost.counted import count_macs
from supernets.blocks.windows import PatchEmbed, PatchMerging, TokenHead, WindowBlock


def seeded(block, seed=0):
    """Build a block in eval mode with larger, seeded weights, so that a wrong bias or mask has an effect."""
    generator = torch.Generator().manual_seed(seed)
    module = block.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def window_of(length, at, window, shift):
    """Return the number of the window that holds a position along a side, found by counting."""
    number = 1
    while window * number < length:
        number += 1
    size = 1
    while size * number < length:
        size += 1
    first = size // 2 if shift and number > 1 else 0
    return 0 if at < first else 1 + (at - first) // size


def plain_attention(block, state, x):
    """Compute masked attention over the whole map `[h, w, embed_dim]`, score by score."""
    height, width, _ = x.shape
    head_dim = block.qkv_dim // block.heads
    rows = x @ state["qkv.weight"].T + state["qkv.bias"]
    q, k, v = (rows[..., i::3] for i in range(3))
    places = [(y, x) for y in range(height) for x in range(width)]
    out = torch.zeros(height, width, block.qkv_dim)
    for y, x_ in places:
        mine = (window_of(height, y, block.window, block.shift), window_of(width, x_, block.window, block.shift))
        seen = [
            (i, j)
            for i, j in places
            if (window_of(height, i, block.window, block.shift), window_of(width, j, block.window, block.shift)) == mine
        ]
        for head in range(block.heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            scores = []
            for i, j in seen:
                bias = state["bias_table"][y - i + block.window - 1, x_ - j + block.window - 1, head]
                scores.append(q[y, x_, part] @ k[i, j, part] / head_dim**0.5 + bias)
            weights = torch.stack(scores).softmax(0)
            out[y, x_, part] = sum(w * v[i, j, part] for w, (i, j) in zip(weights, seen, strict=True))
    return out @ state["proj.weight"].T + state["proj.bias"]


MAPS = [(6, 6), (4, 4), (7, 7), (5, 9), (2, 3), (1, 1)]  # for windows of 3: even, padded, larger, odd, clamped


@pytest.mark.parametrize("size", MAPS, ids=str)
@pytest.mark.parametrize("shift", [False, True])
def test_attention_computes_what_a_loop_over_tokens_does(size, shift):
    block = WindowBlock(embed_dim=8, heads=2, qkv_dim=12, window=3, mlp_ratio=2, shift=shift)
    attention = seeded(block).attention
    x = torch.randn(2, *size, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = attention(x)
        plain = torch.stack([plain_attention(block, attention.state_dict(), sample) for sample in x])
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)


def test_a_small_map_is_one_window():
    block = WindowBlock(8, 2, 16, window=14, mlp_ratio=2, shift=True)
    attention = seeded(block).attention
    x = torch.randn(1, 5, 4, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    attention(x)[0, 0, 0].sum().backward()
    assert (x.grad != 0).all()


def test_a_shift_connects_neighboring_windows():
    for shift in (False, True):
        attention = seeded(WindowBlock(8, 2, 16, window=4, mlp_ratio=2, shift=shift)).attention
        x = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        attention(x)[0, 3, 3].sum().backward()
        seen = x.grad[0].abs().sum(-1) != 0
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[2:6, 2:6] = True
        assert torch.equal(seen, expected if shift else expected.roll((-2, -2), (0, 1)))


def test_a_smaller_window_uses_the_center_of_the_table():
    """Both windows hold the whole map, so both networks compute the same."""
    large, small = (WindowBlock(8, 2, 16, window, mlp_ratio=2) for window in (7, 4))
    network, smaller = seeded(large), small.build().eval()
    state = network.state_dict()
    name = "attention.bias_table"
    state[name] = state[name][3:10, 3:10]
    smaller.load_state_dict(state)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(smaller(x), network(x))


def test_fewer_channels_of_q_k_v_are_leading_rows():
    """With heads of equal size these are the first heads; the projection of the others is set to zero."""
    block, smaller = WindowBlock(8, 3, 12, 3, mlp_ratio=2), WindowBlock(8, 2, 8, 3, mlp_ratio=2)
    whole, part = seeded(block).attention, smaller.build().attention
    state = {k: v[tuple(slice(n) for n in part.state_dict()[k].shape)] for k, v in whole.state_dict().items()}
    part.load_state_dict(state)
    whole.proj.weight.data[:, 8:] = 0
    x = torch.randn(2, 4, 5, 8)
    torch.testing.assert_close(part(x), whole(x))


@pytest.mark.parametrize("act", ["gelu", "hard_swish"])
def test_a_block_computes_its_formula(act):
    module = seeded(WindowBlock(8, 2, 16, 3, mlp_ratio=2.5, act=act))
    state, x = module.state_dict(), torch.randn(2, 8, 5, 5)
    tokens = x.permute(0, 2, 3, 1)
    tokens = tokens + module.attention(F.layer_norm(tokens, (8,), state["norm1.weight"], state["norm1.bias"]))
    hidden = F.linear(F.layer_norm(tokens, (8,), state["norm2.weight"], state["norm2.bias"]), state["mlp.fc1.weight"])
    hidden = {"gelu": F.gelu, "hard_swish": F.hardswish}[act](hidden + state["mlp.fc1.bias"])
    assert hidden.shape[-1] == 20
    tokens = tokens + F.linear(hidden, state["mlp.fc2.weight"], state["mlp.fc2.bias"])
    torch.testing.assert_close(module(x), tokens.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


def test_patch_embedding_is_a_linear_layer_over_pixels():
    block = PatchEmbed(3, 8)
    module = seeded(block)
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(8))
    patches = F.unfold(x, 4, stride=4).transpose(1, 2) @ state["conv.weight"].flatten(1).T + state["conv.bias"]
    plain = F.layer_norm(patches, (8,), state["norm.weight"], state["norm.bias"]).transpose(1, 2)
    torch.testing.assert_close(module(x), plain.reshape(2, 8, 2, 2), rtol=1e-4, atol=1e-5)


def test_merging_is_a_linear_layer_over_four_tokens():
    block = PatchMerging(8, 12)
    module = seeded(block)
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(4))
    out = module(x)
    for y in range(2):
        for x_ in range(2):
            four = x[:, :, 2 * y : 2 * y + 2, 2 * x_ : 2 * x_ + 2].reshape(2, 32)
            plain = F.layer_norm(four, (32,), state["norm.weight"], state["norm.bias"]) @ state["reduction.weight"].T
            torch.testing.assert_close(out[:, :, y, x_], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 30])
def test_odd_sizes_are_rounded_up(size):
    for block, stride in ((PatchEmbed(3, 8), 4), (PatchMerging(3, 8), 2)):
        module, x = seeded(block), torch.randn(2, *block.input_shape(size))
        side = -(-size // stride) * stride
        repeated = F.pad(x, (0, side - size, 0, side - size), mode="replicate")
        assert module(x).shape == (2, 8, side // stride, side // stride)
        torch.testing.assert_close(module(x), module(repeated))


def test_the_head_computes_its_formula():
    module = seeded(TokenHead(8, 5))
    state, x = module.state_dict(), torch.randn(2, 8, 3, 3)
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (8,), state["norm.weight"], state["norm.bias"])
    plain = F.linear(tokens.mean(1), state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-5)


def test_macs_are_those_of_the_formula():
    block = WindowBlock(96, 3, 96, window=7, mlp_ratio=4)
    tokens, width = 28 * 28, 96
    expected = tokens * width * (3 * width + width + 8 * width) + 2 * tokens * 49 * width
    assert count_macs(block.build().eval(), block.input_shape(28)) == expected


def test_gradients_flow_into_every_parameter():
    block = WindowBlock(8, 2, 16, window=3, mlp_ratio=2, shift=True)
    module = seeded(block).train()
    module(torch.randn(2, 8, 7, 7)).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad != 0).float().mean() > 0.9, name


def test_a_partition_cached_in_inference_mode_can_be_trained_with():
    module = seeded(WindowBlock(8, 2, 16, window=3, mlp_ratio=2, shift=True))
    x = torch.randn(1, 8, 11, 11)
    with torch.inference_mode():
        module(x)
    module(x).sum().backward()
    assert module.attention.qkv.weight.grad.isfinite().all()


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(FamilyError, match="qkv_dim 64 cannot be split among heads 3; give"):
        WindowBlock(96, 3, 64, 7, mlp_ratio=4)


def test_drop_path_is_active_in_training_only():
    module, x = seeded(WindowBlock(8, 2, 16, 7, mlp_ratio=2)), torch.randn(2, 8, 3, 3)
    assert not torch.equal(module.train()(x), x)
    module.drop_path.drop_prob = 1.0
    assert not torch.equal(module.eval()(x), x)
    assert torch.equal(module.train()(x), x)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [1, 5, 9, 14])
def test_onnx_computes_the_same(size, shift, tmp_path):
    block = WindowBlock(8, 2, 16, window=7, mlp_ratio=2, shift=shift)
    network = torch.nn.Sequential(PatchEmbed(3, 8, patch=2).build(), seeded(block), PatchMerging(8, 16).build())
    network.append(seeded(TokenHead(16, 5)))
    batches = [torch.randn(n, 3, 2 * size - 1, 2 * size - 1) for n in (1, 3)]
    shape = (3, 2 * size - 1, 2 * size - 1)
    export_onnx(network, shape, tmp_path / "block.onnx", images=batches, tolerance=1e-3)


def test_a_network_that_was_exported_by_torch_first_still_computes_and_both_agree():
    """`torch.export` runs the network on tensors without values, which must not be kept for later runs."""
    family = ofa.create_family("hybrid_small", resolutions=(37,))  # a size that no other test has
    arch = family.space.largest
    network = family.build(arch).eval()
    images = torch.randn(1, *family.input_shape(arch), generator=torch.Generator().manual_seed(0))
    program = torch.export.export(network, (images,))
    logits = network(images)
    assert type(logits) is torch.Tensor
    assert torch.equal(program.module()(images), logits)
