import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from ofa.supernet.rules import nested_view
from supernets.blocks.convolutions import Bottleneck, ConvNorm, Head, MaxPool, MBConv, he_init, scaled

ACTS = {"relu": F.relu, "hard_swish": F.hardswish}


def plain_scaled(channels):
    """Return the nearest multiple of 8 (the larger one of two), at least 8 and nine tenths of the channels."""
    down, up = 8 * math.floor(channels / 8), 8 * math.floor(channels / 8) + 8
    nearest = max(8, down if channels - down < up - channels else up)
    return nearest if nearest >= 0.9 * channels else nearest + 8


@pytest.mark.parametrize("width_mult", [0.25, 0.5, 1.0, 1.2])
def test_scaled_channels_are_multiples_of_8(width_mult):
    for channels in range(1, 400):
        assert scaled(channels, width_mult) == plain_scaled(channels * width_mult)
    assert [scaled(c, 1.2) for c in (16, 24, 40, 80, 112, 160, 960)] == [24, 32, 48, 96, 136, 192, 1152]


def norm(x, state, name, eps=1e-5):
    names = (f"{name}.{leaf}" for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *(state[name] for name in names), eps=eps)


def plain_mbconv(block, state, x):
    """Compute an inverted residual from the tensors of the built block."""
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
def test_an_inverted_residual_computes_its_formula(block):
    module = with_noise(block.build())
    x = torch.randn(2, *block.input_shape(9))
    out = module(x)
    assert out.shape == (2, block.out_channels, -(-9 // block.stride), -(-9 // block.stride))
    torch.testing.assert_close(out, plain_mbconv(block, module.state_dict(), x), rtol=1e-4, atol=1e-4)


def test_hidden_channels_follow_the_expansion():
    state = MBConv(24, 40, 5, 2, 4, se=True, act="relu", residual=False).build().state_dict()
    assert state["expand.conv.weight"].shape == (96, 24, 1, 1)
    assert state["depthwise.conv.weight"].shape == (96, 1, 5, 5)
    assert state["se.fc1.weight"].shape == (24, 96, 1, 1)
    assert state["project.conv.weight"].shape == (40, 96, 1, 1)
    assert not any(
        name.startswith("expand") for name in MBConv(16, 16, 3, 1, 1, False, "relu", True).build().state_dict()
    )


@pytest.mark.parametrize("kernel", [3, 5])
def test_conv_norm_computes_its_formula(kernel):
    block = ConvNorm(3, 8, kernel, stride=2, act="hard_swish")
    module = with_noise(block.build())
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(11))
    plain = F.hardswish(norm(F.conv2d(x, state["conv.weight"], stride=2, padding=kernel // 2), state, "bn"))
    assert plain.shape == (2, 8, 6, 6)
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-4)


def test_the_head_computes_its_formula():
    block = Head(16, 48, 32, 10)
    module = with_noise(block.build())
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(4))
    out = F.hardswish(norm(F.conv2d(x, state["conv.conv.weight"]), state, "conv.bn")).mean(dim=(2, 3))
    out = F.hardswish(out @ state["hidden.weight"][:, :, 0, 0].T) @ state["classifier.weight"].T
    torch.testing.assert_close(module(x), out + state["classifier.bias"], rtol=1e-4, atol=1e-4)


def test_the_heads_dropout_is_active_in_training_only():
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


def test_equal_blocks_have_one_key_in_a_table():
    block = BLOCKS[0]
    same = MBConv(16, 24, 3, 2, 4, se=False, act="relu", residual=False)
    assert (hash(block), repr(block)) == (hash(same), repr(same))
    assert len({*BLOCKS, same}) == len({repr(block) for block in BLOCKS}) == len(BLOCKS)


def test_initialization_has_the_documented_scales():
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


def test_a_residual_conv_norm_adds_its_input_after_the_activation():
    module = with_noise(ConvNorm(8, 8, 3, act="relu", residual=True).build())
    state, x = module.state_dict(), torch.randn(2, 8, 5, 5)
    plain = x + norm(F.conv2d(x, state["conv.weight"], padding=1), state, "bn").relu()
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-4)
    assert state.keys() == ConvNorm(8, 8).build().state_dict().keys()


def test_blocks_pass_epsilon_to_all_their_norms():
    blocks = [
        ConvNorm(8, 8, norm_eps=1e-3),
        MBConv(8, 8, 3, 1, 2, True, "relu", True, norm_eps=1e-3),
        Head(8, 16, None, 10, norm_eps=1e-3),
    ]
    for block in blocks:
        assert {m.eps for m in block.build().modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("stride", "out_channels"), [(1, 24), (2, 16), (2, 24)])
def test_a_shortcut_that_changes_the_shape_is_pooled_and_projected(size, stride, out_channels):
    module = with_noise(MBConv(16, out_channels, 3, stride, 2, se=False, act="relu", residual=True).build())
    state, x = module.state_dict(), torch.randn(2, 16, size, size)
    shortcut = F.avg_pool2d(x, stride, ceil_mode=True)
    if out_channels != 16:
        shortcut = F.conv2d(shortcut, state["shortcut.conv.weight"])
    block = MBConv(16, out_channels, 3, stride, 2, se=False, act="relu", residual=False)
    torch.testing.assert_close(module(x), shortcut + plain_mbconv(block, state, x), rtol=1e-4, atol=1e-4)


def test_a_spare_shortcut_is_not_used():
    plain = MBConv(16, 16, 3, 1, 1, se=False, act="relu", residual=True)
    spare = MBConv(16, 16, 3, 1, 1, se=False, act="relu", residual=True, spare_shortcut=True)
    module, x = with_noise(spare.build()), torch.randn(2, 16, 5, 5)
    state = module.state_dict()
    assert state.keys() - plain.build().state_dict().keys() == {"shortcut.conv.weight"}
    torch.testing.assert_close(module(x), plain_mbconv(plain, state, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("in_channels", "stride", "downsample"), [(40, 1, False), (24, 1, True), (40, 2, True)])
def test_a_bottleneck_computes_its_formula(size, in_channels, stride, downsample):
    block = Bottleneck(in_channels, 40, stride, 0.35, downsample)
    module = with_noise(block.build())
    state, x = module.state_dict(), torch.randn(2, *block.input_shape(size))
    assert state["conv2.conv.weight"].shape == (16, 16, 3, 3)  # 14, rounded to a multiple of 8
    out = norm(F.conv2d(x, state["conv1.conv.weight"]), state, "conv1.bn").relu()
    out = norm(F.conv2d(out, state["conv2.conv.weight"], stride=stride, padding=1), state, "conv2.bn").relu()
    out, shortcut = norm(F.conv2d(out, state["conv3.conv.weight"]), state, "conv3.bn"), x
    if downsample:
        shortcut = F.conv2d(F.avg_pool2d(x, stride, ceil_mode=True), state["shortcut.conv.weight"])
        shortcut = norm(shortcut, state, "shortcut.bn")
    torch.testing.assert_close(module(x), (out + shortcut).relu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [7, 8])
def test_max_pool_takes_the_maximum_of_windows(size):
    block = MaxPool(8)
    x = torch.randn(2, *block.input_shape(size))
    padded = F.pad(x, (1, 1, 1, 1), value=-math.inf)
    assert torch.equal(block.build()(x), padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5)))


def test_heads_may_omit_the_convolution_and_the_hidden_layer():
    x = torch.randn(2, 16, 4, 4)
    bare, narrow = (
        with_noise(head.build()) for head in (Head(16, None, None, 10), Head(16, 48, None, 10, act="relu6"))
    )
    state = narrow.state_dict()
    pooled = F.relu6(norm(F.conv2d(x, state["conv.conv.weight"]), state, "conv.bn")).mean((2, 3))
    torch.testing.assert_close(narrow(x), F.linear(pooled, state["classifier.weight"], state["classifier.bias"]))
    state = bare.state_dict()
    assert state.keys() == {"classifier.weight", "classifier.bias"}
    torch.testing.assert_close(bare(x), F.linear(x.mean((2, 3)), state["classifier.weight"], state["classifier.bias"]))


def test_a_new_field_with_its_default_does_not_change_the_key_of_a_table():
    assert repr(ConvNorm(3, 8)) == "ConvNorm(in_channels=3, out_channels=8, kernel=3, stride=1, act='hard_swish')"
    head = "Head(in_channels=8, conv_channels=16, hidden=32, num_classes=10, dropout=0.0)"
    assert repr(Head(8, 16, 32, 10)) == head
    assert repr(Head(8, 16, 32, 10, norm_eps=1e-3)) == f"{head[:-1]}, norm_eps=0.001)"
    fields = "in_channels=8, out_channels=8, kernel=3, stride=1, expand=2, se=True, act='relu', residual=True"
    block = MBConv(8, 8, 3, 1, 2, True, "relu", True)
    assert repr(block) == f"MBConv({fields})"
    assert (
        repr(MBConv(8, 8, 3, 1, 2, True, "relu", True, spare_shortcut=True)) == f"MBConv({fields}, spare_shortcut=True)"
    )
