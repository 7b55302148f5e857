import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ofa.sharing import nested_view
from supernets.blocks import ConvNorm, Head, MBConv, he_init, scaled

ACTS = {"relu": F.relu, "hard_swish": F.hardswish}


def plain_scaled(channels):
    """The nearest multiple of 8, the larger of two as near, at least 8, and never below nine tenths."""
    down, up = 8 * math.floor(channels / 8), 8 * math.floor(channels / 8) + 8
    nearest = max(8, down if channels - down < up - channels else up)
    return nearest if nearest >= 0.9 * channels else nearest + 8


@pytest.mark.parametrize("width_mult", [0.25, 0.5, 1.0, 1.2])
def test_scaled_channels_are_multiples_of_8(width_mult):
    for channels in range(1, 400):
        assert scaled(channels, width_mult) == plain_scaled(channels * width_mult)
    assert [scaled(c, 1.2) for c in (16, 24, 40, 80, 112, 160, 960)] == [24, 32, 48, 96, 136, 192, 1152]


def norm(x, state, name):
    return F.batch_norm(
        x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"], state[f"{name}.bias"]
    )


def plain_mbconv(block, state, x):
    """The formula, from the tensors of the built block."""
    act, out = ACTS[block.act], x
    if block.expand != 1:
        out = act(norm(F.conv2d(out, state["expand.conv.weight"]), state, "expand.bn"))
    kernel = state["depthwise.conv.weight"]
    out = F.conv2d(out, kernel, stride=block.stride, padding=block.kernel // 2, groups=len(kernel))
    out = act(norm(out, state, "depthwise.bn"))
    if block.se:
        pooled = out.mean(dim=(2, 3), keepdim=True)
        squeezed = F.relu(F.conv2d(pooled, state["se.fc1.weight"], state["se.fc1.bias"]))
        out = out * F.hardsigmoid(F.conv2d(squeezed, state["se.fc2.weight"], state["se.fc2.bias"]))
    out = norm(F.conv2d(out, state["project.conv.weight"]), state, "project.bn")
    return x + out if block.residual else out


def with_noise(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.5)
    return module.eval()


BLOCKS = [
    MBConv(16, 24, 3, 2, 4, se=False, act="relu", residual=False),
    MBConv(16, 16, 5, 1, 3, se=True, act="hard_swish", residual=True),
    MBConv(16, 16, 7, 1, 6, se=True, act="relu", residual=False),
    MBConv(16, 16, 3, 1, 1, se=False, act="relu", residual=True),
    MBConv(24, 24, 3, 1, 2.5, se=True, act="hard_swish", residual=True),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_an_inverted_residual_is_its_formula(block):
    module = with_noise(block.build())
    x = torch.randn(2, *block.input_shape(9))
    out = module(x)
    assert out.shape == (2, block.out_channels, -(-9 // block.stride), -(-9 // block.stride))
    torch.testing.assert_close(out, plain_mbconv(block, module.state_dict(), x), rtol=1e-4, atol=1e-4)


def test_hidden_channels():
    state = MBConv(24, 40, 5, 2, 4, se=True, act="relu", residual=False).build().state_dict()
    assert state["expand.conv.weight"].shape == (96, 24, 1, 1)
    assert state["depthwise.conv.weight"].shape == (96, 1, 5, 5)
    assert state["se.fc1.weight"].shape == (24, 96, 1, 1)
    assert state["project.conv.weight"].shape == (40, 96, 1, 1)
    assert not any(
        name.startswith("expand") for name in MBConv(16, 16, 3, 1, 1, False, "relu", True).build().state_dict()
    )


@pytest.mark.parametrize("kernel", [3, 5])
def test_conv_norm_is_its_formula(kernel):
    block = ConvNorm(3, 8, kernel, stride=2, act="hard_swish")
    module = with_noise(block.build())
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(11))
    plain = F.hardswish(norm(F.conv2d(x, state["conv.weight"], stride=2, padding=kernel // 2), state, "bn"))
    assert plain.shape == (2, 8, 6, 6)
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-4)


def test_the_head_is_its_formula():
    block = Head(16, 48, 32, 10)
    module = with_noise(block.build())
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(4))
    out = F.hardswish(norm(F.conv2d(x, state["conv.conv.weight"]), state, "conv.bn")).mean(dim=(2, 3))
    out = F.hardswish(out @ state["hidden.weight"][:, :, 0, 0].T) @ state["classifier.weight"].T
    torch.testing.assert_close(module(x), out + state["classifier.bias"], rtol=1e-4, atol=1e-4)


def test_dropout_of_the_head_works_in_training_only():
    module = Head(16, 48, 512, 10, dropout=0.5).build()
    kept = []
    module.dropout.register_forward_hook(lambda _, inputs, out: kept.append((out != 0).float().mean().item()))
    images = torch.randn(8, 16, 4, 4)
    module(images)
    module.eval()(images)
    assert 0.4 < kept[0] < 0.6
    assert kept[1] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("expand", [2, 3, 4, 6])
def test_smaller_blocks_nest_in_the_largest(kernel, expand):
    largest = MBConv(24, 24, 7, 1, 6, True, "relu", True).build().state_dict()
    for name, tensor in MBConv(24, 24, kernel, 1, expand, True, "relu", True).build().state_dict().items():
        assert nested_view(largest[name], tensor.shape, name).shape == tensor.shape


def test_equal_blocks_are_one_key_of_a_table():
    block = BLOCKS[0]
    same = MBConv(16, 24, 3, 2, 4, se=False, act="relu", residual=False)
    assert (hash(block), repr(block)) == (hash(same), repr(same))
    assert len({*BLOCKS, same}) == len({repr(block) for block in BLOCKS}) == len(BLOCKS)


def test_initialisation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(64, 256, 3), nn.Conv2d(512, 512, 5, groups=512), nn.Linear(300, 400))
        for layer in network:
            nn.init.constant_(layer.weight, 7.0)
            nn.init.constant_(layer.bias, 7.0)
        assert he_init(network) is network
    for layer, std in zip(network, (math.sqrt(2 / (9 * 256)), math.sqrt(2 / (25 * 512)), 0.01), strict=True):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
        assert abs(layer.weight.mean().item()) < 0.05 * std
        assert layer.bias.abs().max() == 0
