import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import ofa
from ofa.core.errors import CheckpointError, SpaceError
from supernets import ofa_mobilenet_v3, ofa_proxyless, ofa_resnet50, small_mobilenet_v3
from supernets.checkpoints import once_for_all as official

RESOLUTIONS = (96, 128, 160)
FAMILIES = {
    "ofa_mobilenet_v3": ofa_mobilenet_v3.family(resolutions=RESOLUTIONS),
    "ofa_mobilenet_v3_w1.2": ofa_mobilenet_v3.family(resolutions=RESOLUTIONS, width_mult=1.2),
    "ofa_proxyless": ofa_proxyless.family(resolutions=RESOLUTIONS),
    "ofa_resnet50": ofa_resnet50.family(resolutions=RESOLUTIONS),
}


def random_state(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("_matrix"):
            state[name] = torch.eye(shape[0]) + 0.1 * noise
        elif name.endswith("running_var"):
            state[name] = 0.5 + noise.abs()
        elif len(shape) > 1:
            state[name] = noise * math.sqrt(2 * shape[0] / math.prod(shape))
        else:
            state[name] = (1.0 if name.endswith("weight") else 0.0) + 0.2 * noise
    return state


def supernet_with(family, state):
    """Return a supernet with official tensors."""
    supernet = ofa.Supernet(family)
    names, tensors = official.names(family), {official.canonical(name): tensor for name, tensor in state.items()}
    for name, tensor in supernet.network.state_dict().items():
        tensor.copy_(tensors[names[name]].reshape(tensor.shape))
    return supernet.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def data(name):
    return json.loads((Path(__file__).parent / "official" / f"{name}.json").read_text())


# The official networks as formulas of their own tensors, for any arch and weights


def conv(x, weight, stride=1, groups=1):
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def norm(x, state, name, eps=1e-5):
    """Normalize with the leading part of the statistics."""
    mean, var, weight, bias = (
        state[f"{name}.{leaf}"][: x.shape[1]] for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, var, weight, bias, eps=eps)


def divisible(channels):
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def depthwise_kernel(state, name, channels, size):
    weight = state[f"{name}.conv.weight"][:channels]
    for large, small in ((7, 5), (5, 3)):
        if size <= small:
            center = weight[:, :, 1:-1, 1:-1].flatten(2)
            weight = (center @ state[f"{name}.{large}to{small}_matrix"].T).reshape(channels, 1, small, small)
    return weight


def plain_mobile(state, config, x, stages, eps):
    """`stages`: stride, activation and number of blocks of each."""
    act = stages[-1][1]
    x = act(norm(conv(x, state["first_conv.conv.weight"], 2), state, "first_conv.bn", eps))
    first, block = "blocks.0.conv", stages[0][1]
    weight = state[f"{first}.depth_conv.conv.weight"]
    out = block(norm(conv(x, weight, groups=len(weight)), state, f"{first}.depth_conv.bn", eps))
    out = norm(conv(out, state[f"{first}.point_linear.conv.weight"]), state, f"{first}.point_linear.bn", eps)
    x = x + out if act is F.hardswish else out
    number = 0
    for (stride, act, n_blocks), depth in zip(stages, config["d"], strict=True):
        for b in range(n_blocks):
            number += 1
            if b >= depth:
                continue
            body, kernel = f"blocks.{number}.conv", config["ks"][number - 1]
            hidden = divisible(x.shape[1] * config["e"][number - 1])
            out = conv(x, state[f"{body}.inverted_bottleneck.conv.conv.weight"][:hidden])
            out = act(norm(out, state, f"{body}.inverted_bottleneck.bn.bn", eps))
            weight = depthwise_kernel(state, f"{body}.depth_conv.conv", hidden, kernel)
            out = conv(out, weight, stride if b == 0 else 1, groups=hidden)
            out = act(norm(out, state, f"{body}.depth_conv.bn.bn", eps))
            if f"{body}.depth_conv.se.fc.reduce.weight" in state:
                reduce, expand = (f"{body}.depth_conv.se.fc.{part}" for part in ("reduce", "expand"))
                n = divisible(hidden // 4)
                gate = out.mean((2, 3), keepdim=True)
                gate = F.conv2d(gate, state[f"{reduce}.weight"][:n, :hidden], state[f"{reduce}.bias"][:n]).relu()
                gate = F.conv2d(gate, state[f"{expand}.weight"][:hidden, :n], state[f"{expand}.bias"][:hidden])
                out = out * F.hardsigmoid(gate)
            out = conv(out, state[f"{body}.point_linear.conv.conv.weight"][:, :hidden])
            out = norm(out, state, f"{body}.point_linear.bn.bn", eps)
            x = x + out if out.shape == x.shape else out
    last = "final_expand_layer" if "final_expand_layer.conv.weight" in state else "feature_mix_layer"
    x = act(norm(conv(x, state[f"{last}.conv.weight"]), state, f"{last}.bn", eps)).mean((2, 3))
    if last == "final_expand_layer":
        x = act(x @ state["feature_mix_layer.conv.weight"].flatten(1).T)
    return F.linear(x, state["classifier.linear.weight"], state["classifier.linear.bias"])


def plain_resnet(state, config, x):
    def widths(channels):
        return [divisible(channels * ratio) for ratio in (0.65, 0.8, 1.0)]

    mids = [divisible(channels // 2) for channels in widths(64)]
    assert mids == [24, 24, 32]

    def layer(x, name, out_channels, stride=1):
        return norm(
            conv(x, state[f"{name}.conv.conv.weight"][:out_channels, : x.shape[1]], stride), state, f"{name}.bn.bn"
        )

    mid, out = mids[config["w"][0]], widths(64)[config["w"][1]]
    x = layer(x, "input_stem.0", mid, 2).relu()
    if config["d"][0] == 2:
        x = x + layer(x, "input_stem.1.conv", mid).relu()
    x = F.max_pool2d(layer(x, "input_stem.2", out).relu(), 3, 2, 1)
    number = 0
    for s, (channels, base) in enumerate(((256, 2), (512, 2), (1024, 4), (2048, 2))):
        out = widths(channels)[config["w"][2 + s]]
        for b in range(base + 2):
            name, stride = f"blocks.{number}", 2 if b == 0 and s > 0 else 1
            hidden = divisible(round(out * config["e"][number]))
            number += 1
            if b >= base + config["d"][1 + s]:
                continue
            shortcut = x
            if b == 0:
                pooled = F.avg_pool2d(x, stride, ceil_mode=True)
                shortcut = layer(pooled, f"{name}.downsample", out)
            x = layer(x, f"{name}.conv1", hidden).relu()
            x = layer(x, f"{name}.conv2", hidden, stride).relu()
            x = (layer(x, f"{name}.conv3", out) + shortcut).relu()
    x = x.mean((2, 3))
    weight = state["classifier.linear.linear.weight"][:, : x.shape[1]]
    return F.linear(x, weight, state["classifier.linear.linear.bias"])


MOBILE_STAGES = [(s, act, 4) for s, act in zip((2, 2, 2, 1, 2), 2 * (F.relu,) + 3 * (F.hardswish,), strict=True)]
PROXYLESS_STAGES = [(s, F.relu6, n) for s, n in zip((2, 2, 2, 1, 2, 1), (4, 4, 4, 4, 4, 1), strict=True)]


def plain(name, state, config, x):
    if name == "ofa_resnet50":
        return plain_resnet(state, config, x)
    if name == "ofa_proxyless":
        return plain_mobile(state, config, x, PROXYLESS_STAGES, eps=1e-3)
    return plain_mobile(state, config, x, MOBILE_STAGES, eps=1e-5)


def random_config(name, rng):
    def draw(values, n):
        return [type(values[0])(value) for value in rng.choice(values, n)]

    if name == "ofa_resnet50":
        depths = [2 * int(rng.integers(2)), *draw([0, 1, 2], 4)]
        return {"d": depths, "e": draw([0.2, 0.25, 0.35], 18), "w": draw([0, 1, 2], 6)}
    last = [1] if name == "ofa_proxyless" else []
    n = 20 + len(last)
    return {"ks": draw([3, 5, 7], n), "e": draw([3, 4, 6], n), "d": draw([2, 3, 4], 5) + last}


def test_any_arch_with_any_weights_computes_the_official_formula(name, data):
    state = random_state(data["keys"], seed=11)
    supernet, rng = supernet_with(FAMILIES[name], state), np.random.default_rng(11)
    x = torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(11))  # odd sizes at every stride
    before = None
    for _ in range(4):
        config = random_config(name, rng)
        with torch.no_grad():
            logits, expected = supernet.subnet(official.arch(supernet.family, config))(x), plain(name, state, config, x)
        size = expected.abs().max()
        assert (logits - expected).abs().max() <= 1e-4 * size, config
        assert before is None or (expected - before).abs().max() > 0.1 * size  # archs differ widely here
        before = expected


def test_numbers_stand_for_lists_and_the_largest_resolution_is_the_default():
    for name in ("ofa_mobilenet_v3", "ofa_proxyless"):
        space = FAMILIES[name].space
        assert official.arch(FAMILIES[name], {"ks": 7, "e": 6, "d": 4, "wid": None}) == space.largest
        assert official.arch(FAMILIES[name], {"ks": 3, "e": 3, "d": 2, "r": [96]}) == space.smallest
    space = FAMILIES["ofa_resnet50"].space
    assert official.arch(FAMILIES["ofa_resnet50"], {"d": 2, "e": 0.35, "w": 2}) == space.largest
    assert official.arch(FAMILIES["ofa_resnet50"], {"d": 0, "e": 0.2, "w": 0, "image_size": 96}) == space.smallest


def test_a_description_may_have_any_values_for_skipped_blocks():
    depths, kernels = [2, 3, 4, 2, 2], 20 * [5]
    arch = official.arch(FAMILIES["ofa_mobilenet_v3"], {"ks": kernels, "e": 20 * [4], "d": depths})
    kernels[2:4] = [0, 0]
    assert official.arch(FAMILIES["ofa_mobilenet_v3"], {"ks": kernels, "e": 20 * [4], "d": depths}) == arch
    assert "stage0.block2.kernel" not in arch
    assert [arch[f"stage{s}.depth"] for s in range(5)] == depths


def test_widths_and_depths_of_the_resnet():
    config = {"d": [1, 0, 1, 2, 0], "e": 0.25, "w": [1, 1, 0, 1, 2, 0]}
    arch = official.arch(FAMILIES["ofa_resnet50"], config)
    assert [arch[f"stage{s}.depth"] for s in range(4)] == [2, 3, 6, 2]
    assert [arch[f"stage{s}.width"] for s in range(4)] == [0.65, 0.8, 1.0, 0.65]
    assert (arch["stem.depth"], arch["stem.mid_width"], arch["stem.width"]) == (0, 0.65, 0.8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ks": 3, "e": 3}, "is described by ks, e, d .* this description has 'ks', 'e'"),
        ({}, "this description has none of them"),
        ({"ks": 3, "e": 3, "d": 2, "w": 1}, "this description has 'ks', 'e', 'd', 'w'"),
        ({"ks": [3], "e": 3, "d": 2}, r"'ks' of a subnet has 1 entries instead of 20: \[3\]"),
        ({"ks": 3, "e": 3, "d": 6 * [2]}, "'d' of a subnet has 6 entries instead of 5"),
        ({"ks": 3, "e": 3, "d": 2, "r": [96, 128]}, "'r' of a subnet has 2 entries instead of 1"),
        ({"ks": "3", "e": 3, "d": 2}, "'ks' of a subnet has 1 entries"),
        ({"ks": None, "e": 3, "d": 2}, "this description has 'e', 'd'"),
    ],
)
def test_a_description_of_another_form_is_refused(config, message):
    with pytest.raises(CheckpointError, match=message):
        official.arch(FAMILIES["ofa_mobilenet_v3"], config)


def test_values_outside_of_the_space_are_refused():
    with pytest.raises(SpaceError, match=r"stage0.block0.kernel = 9 is not allowed"):
        official.arch(FAMILIES["ofa_mobilenet_v3"], {"ks": 9, "e": 3, "d": 2})
    with pytest.raises(SpaceError, match=r"resolution = 100 is not allowed"):
        official.arch(FAMILIES["ofa_mobilenet_v3"], {"ks": 3, "e": 3, "d": 2, "image_size": 100})
    with pytest.raises(CheckpointError, match=r"'w' of a subnet holds 3; each entry must be an index"):
        official.arch(FAMILIES["ofa_resnet50"], {"d": 0, "e": 0.2, "w": 3})
    with pytest.raises(CheckpointError, match=r"'w' of a subnet holds -1"):
        official.arch(FAMILIES["ofa_resnet50"], {"d": 0, "e": 0.2, "w": [0, 0, 0, 0, 0, -1]})
    with pytest.raises(SpaceError, match=r"stage2.depth = 7 is not allowed"):
        official.arch(FAMILIES["ofa_resnet50"], {"d": [2, 0, 0, 3, 0], "e": 0.2, "w": 0})


def test_a_family_that_once_for_all_lacks_is_refused():
    family = small_mobilenet_v3.family()
    with pytest.raises(CheckpointError, match="no family 'small_mobilenet_v3'; choose one of ofa_mobilenet_v3"):
        official.names(family)
    with pytest.raises(CheckpointError, match="no family 'small_mobilenet_v3'"):
        official.arch(family, {"ks": 3, "e": 3, "d": 2})


def test_without_kernel_transforms_there_are_no_matrices(data, name):
    if name == "ofa_resnet50":
        assert not any(key.endswith("_matrix") for key in data["keys"])
        return
    module = ofa_proxyless if name == "ofa_proxyless" else ofa_mobilenet_v3
    names = official.names(module.family(kernel_transforms=False)).values()
    keys = set(map(official.canonical, data["keys"]))
    assert keys - set(names) == {key for key in keys if key.endswith("_matrix")}


@pytest.mark.parametrize(
    "release",
    [
        lambda name: name,
        lambda name: name.replace(".conv.depth", ".mobile_inverted_conv.depth"),
        lambda name: name.replace(".bn.bn.", ".bn."),
        official.canonical,
    ],
)
def test_names_of_all_releases_have_one_canonical_form(name, data, release):
    if name == "ofa_resnet50" and release is official.canonical:
        return  # its stem has a convolution in a module `conv`, which only the official name tells from an elastic one
    released = map(release, data["keys"])
    assert sorted(map(official.canonical, released)) == sorted(official.names(FAMILIES[name]).values())


def test_a_file_with_names_of_an_older_release_is_imported(name, data, tmp_path):
    state = random_state(data["keys"], seed=4)
    older = {name.replace(".conv.depth", ".mobile_inverted_conv.depth"): tensor for name, tensor in state.items()}
    torch.save({"state_dict": older}, tmp_path / "older.pth")
    imported = ofa.import_checkpoint("once-for-all", tmp_path / "older.pth", FAMILIES[name]).network.state_dict()
    expected = supernet_with(FAMILIES[name], state).network.state_dict()
    assert all(torch.equal(tensor, imported[name]) for name, tensor in expected.items())
