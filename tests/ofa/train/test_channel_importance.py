import copy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import ofa
from ofa.core.errors import FamilyError, SpaceError, TrainError
from ofa.supernet.block import skeleton
from ofa.train.channel_importance import channel_order, permute
from tests.families import FAMILIES, VARIANTS

OPTIONS = {"num_classes": 10, "in_channels": 3, "resolutions": (32, 48)}
BOTTLENECKS = {
    "*.conv1.conv.weight": {0},
    "*.conv[12].bn.[!n]*": {0},
    "*.conv2.conv.weight": {0, 1},
    "*.conv3.conv.weight": {1},
}
INVERTED_RESIDUALS = {
    "*.expand.conv.weight": {0},
    "*.depthwise.conv.weight": {0},
    "*.expand.bn.[!n]*": {0},  # not num_batches_tracked
    "*.depthwise.bn.[!n]*": {0},
    "*.se.fc?.weight": {0, 1},
    "*.se.fc?.bias": {0},
    "*.project.conv.weight": {1},
}
TRANSFORMERS = {"*.mlp.fc1.*": {0}, "*.mlp.fc2.weight": {1}}
HEAD = {"head.conv.conv.weight": {0}, "head.conv.bn.[!n]*": {0}, "head.hidden.weight": {0, 1}}
EXPECTED = {  # channel dimensions of the elastic groups, by pattern of names
    "attentive_mobilenet": {"stages.0.*": set()} | INVERTED_RESIDUALS | HEAD | {"head.classifier.weight": {1}},
    "autoformer_small": TRANSFORMERS,
    "autoformer_tiny": TRANSFORMERS,
    "hybrid": INVERTED_RESIDUALS | TRANSFORMERS,
    "hybrid_small": INVERTED_RESIDUALS | TRANSFORMERS,
    "ofa_mobilenet_v3": {"first.*": set()} | INVERTED_RESIDUALS,
    "ofa_proxyless": {"first.*": set()} | INVERTED_RESIDUALS,
    "ofa_resnet50": BOTTLENECKS,
    "s3_tiny": TRANSFORMERS,
    "small_mobilenet_v3": INVERTED_RESIDUALS,
}
CONSUMER = {  # the weight that tells the importance of channels, by a tensor of the layer that produces them
    "expand.conv.weight": "project.conv.weight",
    "depthwise.bn.running_var": "project.conv.weight",
    "se.fc1.bias": "se.fc2.weight",
    "se.fc2.bias": "project.conv.weight",
    "conv1.conv.weight": "conv2.conv.weight",
    "conv2.conv.weight": "conv3.conv.weight",
    "mlp.fc1.weight": "mlp.fc2.weight",
    "head.conv.conv.weight": "head.hidden.weight",
    "head.hidden.weight": "head.classifier.weight",
}


@pytest.fixture(scope="module", params=[p for p in FAMILIES if p.values[0] in EXPECTED or p.values[0] not in VARIANTS])
def before(request, awake, smooth_images):
    """A supernet with statistics of images; no test changes it."""
    supernet = ofa.Supernet(ofa.create_family(request.param, **OPTIONS), seed=1)
    awake(supernet.network, smooth_images(8, 3, 48))
    return supernet.eval()


@pytest.fixture(scope="module", params=["the largest", "some"])
def trained(request, before):
    """The subspace trained before: None, or the two largest values of each choice."""
    return None if request.param == "the largest" else before.family.space.keep_largest({"*": 2})


@pytest.fixture(scope="module")
def order(before, trained):
    return channel_order(before, trained)


@pytest.fixture(scope="module")
def after(before, order):
    supernet = ofa.Supernet(before.family)
    supernet.load_state_dict(before.state_dict())
    permute(supernet.network.state_dict(), order)
    return supernet.eval()


def importance(weight):
    """Return the L1 norm of each of a weight's input channels."""
    return np.abs(weight.detach().numpy().astype(np.float64)).sum(axis=tuple({*range(weight.dim())} - {1}))


@cache
def shapes(block):
    return {name: tuple(parameter.shape) for name, parameter in skeleton(block.build).named_parameters()}


def sizes(family, space, slot_path, name):
    """Return the numbers of input channels of a weight in all networks of a space."""
    part = replace(family, space=space)
    index = next(i for i, slot in enumerate(part.slots) if slot.path == slot_path)
    counts = [len(space.choices[column].values) for column in part.columns[index]]
    blocks = {part.slot_block(index, indices) for indices in np.ndindex(*counts)} - {None}
    return {shapes(block)[name][1] for block in blocks}


def assert_same(logits, expected):
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_all_elastic_channel_groups_are_sorted_and_nothing_else(before, order):
    patterns = EXPECTED[before.family.name]
    expected = {}
    for name in before.network.state_dict():
        dims = next((dims for pattern, dims in patterns.items() if fnmatchcase(name, pattern)), set())
        if dims and not name.endswith(("_7to5", "_5to3")):  # all channels share the kernel transforms
            expected[name] = dims
    assert {name: set(dims) for name, dims in order.items()} == expected


def test_subnets_trained_before_compute_the_same(before, after, trained, smooth_images):
    archs = [before.family.space.largest]
    if trained is not None:
        rows = trained.sample(4, np.random.default_rng(3))
        archs += [trained.smallest, *(trained.decode(row) for row in rows)]
    for arch in archs:
        images = smooth_images(4, 3, arch["resolution"])
        with torch.no_grad():
            assert_same(after.subnet(arch)(images), before.subnet(arch)(images))


def test_importance_falls_between_borders_and_channels_stay_between_them(before, after, trained, order):
    checked, moved, n_inner = set(), 0, 0
    for name in order:
        producer = next((producer for producer in CONSUMER if name.endswith(producer)), None)
        if producer is None:
            continue
        consumer = name.removesuffix(producer) + CONSUMER[producer]
        index = order[name][0]
        assert torch.equal(order[consumer][1], index)
        checked.add(consumer)
        old, new = (importance(supernet.network.get_parameter(consumer)) for supernet in (before, after))
        np.testing.assert_allclose(new, old[index], rtol=1e-5)
        slot_path = next(slot.path for slot in before.family.slots if consumer.startswith(slot.path + "."))
        borders = {0, len(index)}
        if trained is not None:
            borders |= sizes(before.family, trained, slot_path, consumer.removeprefix(slot_path + "."))
        borders = sorted(borders)
        n_inner += len(borders) - 2
        for start, end in pairwise(borders):
            assert sorted(index[start:end].tolist()) == list(range(start, end))
            assert (np.diff(new[start:end]) <= 1e-6 * new.max()).all()
        moved += int((index != torch.arange(len(index))).sum())
    assert checked == {name for name, dims in order.items() if 1 in dims and not name.endswith("se.fc1.weight")}
    assert moved > 100
    assert (n_inner > 3) == (trained is not None)


@pytest.fixture
def tiny_supernet(tiny, awake, smooth_images):
    supernet = ofa.Supernet(tiny, seed=2)
    awake(supernet.network, smooth_images(16, 1, 16))
    return supernet.eval()


@pytest.mark.parametrize("n_kept", [1, 2])
def test_equal_calls_give_equal_orders(tiny_supernet, n_kept):
    trained = tiny_supernet.family.space.keep_largest({"stage?.depth": 4, "*.expand": n_kept})
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    one, two = channel_order(tiny_supernet, trained), channel_order(copy.deepcopy(tiny_supernet), trained)
    assert torch.equal(torch.rand(1), expected)  # the global generator is not touched
    assert one.keys() == two.keys()
    for name, dims in one.items():
        assert all(torch.equal(index, two[name][dim]) for dim, index in dims.items())


def test_one_block_is_sorted_as_by_hand(tiny_supernet):
    """One inverted residual with squeeze-and-excite, its parameters sorted by name."""
    path, network = "stages.1.1", tiny_supernet.network
    block = network.get_submodule(path)
    old = {name: tensor.clone().numpy() for name, tensor in block.state_dict().items()}
    hidden = sorted(range(old["project.conv.weight"].shape[1]), key=lambda c: -importance(block.project.conv.weight)[c])
    squeezed = sorted(range(old["se.fc2.weight"].shape[1]), key=lambda c: -importance(block.se.fc2.weight)[c])
    new = dict(old)
    for layer in ("expand", "depthwise"):
        for name in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
            new[f"{layer}.{name}"] = old[f"{layer}.{name}"][hidden]
    new["se.fc1.weight"] = old["se.fc1.weight"][squeezed][:, hidden]
    new["se.fc1.bias"] = old["se.fc1.bias"][squeezed]
    new["se.fc2.weight"] = old["se.fc2.weight"][hidden][:, squeezed]
    new["se.fc2.bias"] = old["se.fc2.bias"][hidden]
    new["project.conv.weight"] = old["project.conv.weight"][:, hidden]

    permute(network.state_dict(), channel_order(tiny_supernet))
    for name, tensor in block.state_dict().items():
        assert np.array_equal(tensor.numpy(), new[name]), name


def test_the_smallest_network_keeps_the_most_important_channels(tiny_supernet):
    space, name = tiny_supernet.family.space, "stages.2.0.project.conv.weight"
    full = importance(tiny_supernet.network.get_parameter(name))
    subnet = tiny_supernet.subnet(space.smallest)
    n_kept = subnet.get_parameter(name).shape[1]
    share_before = importance(subnet.get_parameter(name)).sum()
    permute(tiny_supernet.network.state_dict(), channel_order(tiny_supernet))
    kept = importance(tiny_supernet.network.get_parameter(name)[:, :n_kept])
    np.testing.assert_allclose(kept, np.sort(full)[::-1][:n_kept], rtol=1e-5)
    assert importance(subnet.get_parameter(name)).sum() > share_before  # an existing subnet sees the new channels


def test_sorting_and_a_training_step_commute(tiny_supernet, smooth_images):
    """Training continues as it would have if the optimizer's momentum is sorted with the network."""
    images, order = smooth_images(8, 1, 16), channel_order(tiny_supernet)
    ends = []
    for sorted_after in (1, 2):
        supernet = copy.deepcopy(tiny_supernet)
        optimizer = torch.optim.SGD(supernet.network.parameters(), lr=1e-4, momentum=0.9)
        for step in (1, 2):
            supernet.zero_grad()
            supernet.subnet(supernet.family.space.largest)(images).square().mean().backward()
            optimizer.step()
            if step == sorted_after:
                permute(supernet.network.state_dict(), order)
                momenta = {n: optimizer.state[p]["momentum_buffer"] for n, p in supernet.network.named_parameters()}
                permute(momenta, order)
        ends.append(supernet.network.state_dict())
    permute(tiny_supernet.network.state_dict(), order)
    start = tiny_supernet.network.state_dict()
    for name, tensor in ends[0].items():
        change = ends[1][name] - start[name]
        assert (tensor - ends[1][name]).abs().max() <= 1e-2 * change.abs().max() + 1e-7, name
    assert sum(not torch.equal(tensor, start[name]) for name, tensor in ends[0].items()) > 50


# A family of one's own


class TwoMlps(nn.Module):
    """Add two hidden layers of equal size, registered in an order of their own."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.down, self.up = nn.Linear(hidden, channels), nn.Linear(channels, hidden)
        self.into, self.out = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x):
        return self.down(self.up(x).relu()) + self.out(self.into(x).relu())


UP = (("up.weight", 0), ("up.bias", 0), ("down.weight", 1))
INTO = (("into.weight", 0), ("into.bias", 0), ("out.weight", 1))


@dataclass(frozen=True)
class TwoMlpsBlock:
    channels: int
    hidden: int
    groups: tuple

    def build(self):
        return TwoMlps(self.channels, self.hidden)

    def input_shape(self, size):  # noqa: ARG002  # a vector has no size
        return (self.channels,)

    def channel_groups(self):
        return self.groups


@dataclass(frozen=True)
class Pixels:
    """The first slot, from images to vectors."""

    channels: int

    def build(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, self.channels))

    def input_shape(self, size):
        return (1, size, size)


def two_mlps(groups, hidden=(4, 6, 10)):
    """Return a family whose second slot declares `groups(hidden)`."""
    choices = [ofa.Choice("resolution", (8, 16)), ofa.Choice("width", (6, 8)), ofa.Choice("hidden", hidden)]
    slots = (
        ofa.Slot("pixels", Pixels, ("width",)),
        ofa.Slot("body", lambda channels, size: TwoMlpsBlock(channels, size, groups(size)), ("width", "hidden")),
    )
    return ofa.Family("two_mlps", ofa.SearchSpace(choices), slots, 1)


def named(group):
    return {f"body.{name}": [dim] for name, dim in group}


def dims_by_name(order):
    return {name: sorted(dims) for name, dims in order.items()}


def test_each_channel_group_of_a_block_of_ones_own_has_its_own_order(smooth_images):
    supernet = ofa.Supernet(two_mlps(lambda size: (UP, INTO)))
    images = smooth_images(4, 1, 8)
    logits = supernet(images)
    order = channel_order(supernet)
    assert dims_by_name(order) == named(UP) | named(INTO)
    assert not torch.equal(order["body.down.weight"][1], order["body.out.weight"][1])
    permute(supernet.network.state_dict(), order)
    assert_same(supernet(images), logits)
    for name in ("down", "out"):
        assert (np.diff(importance(supernet.network.get_parameter(f"body.{name}.weight"))) <= 0).all()


def test_the_last_consumer_of_a_group_tells_the_importance():
    supernet = ofa.Supernet(two_mlps(lambda size: ((*UP[:2], ("out.weight", 1), UP[2]),)))
    expected = channel_order(ofa.Supernet(two_mlps(lambda size: (UP,))))["body.up.weight"][0]
    assert torch.equal(channel_order(supernet)["body.out.weight"][1], expected)


def test_a_group_that_only_some_blocks_of_the_slot_declare_stays():
    family = two_mlps(lambda size: (UP,) if size == 6 else (UP, INTO))
    assert dims_by_name(channel_order(ofa.Supernet(family))) == named(UP)


def test_a_group_of_fixed_size_stays():
    assert channel_order(ofa.Supernet(two_mlps(lambda size: (UP, INTO), hidden=(10,)))) == {}


# What is refused


@pytest.mark.parametrize(
    "group",
    [(), (("up.wait", 0), UP[2]), (UP[0], ("down.weight", 2)), (("up.weight", 1), UP[2])],
    ids=["empty", "unknown name", "no such dimension", "different sizes"],
)
def test_a_group_that_the_block_does_not_have_is_refused(group):
    with pytest.raises(FamilyError, match=r"TwoMlpsBlock.* does not have the channel group .*that it declares"):
        channel_order(ofa.Supernet(two_mlps(lambda size: (group,))))


def whole_network():
    space = ofa.SearchSpace([ofa.Choice("width", (2, 4))])

    def build(arch):
        return nn.Sequential(nn.Conv2d(3, arch["width"], 8), nn.Flatten())

    return ofa.Family.from_builder(space, build, name="whole", resolution=8)


@pytest.mark.parametrize("make", [whole_network, lambda: two_mlps(lambda size: ())])
def test_a_family_whose_blocks_declare_no_groups_is_refused(make):
    with pytest.raises(TrainError, match=r"cannot be sorted: its blocks declare no channel groups; train it without"):
        channel_order(ofa.Supernet(make()))


def test_a_space_of_other_choices_is_refused(tiny_supernet):
    other = ofa.SearchSpace([ofa.Choice("width", (1, 2))])
    with pytest.raises(SpaceError, match=r"not a subspace of the space of family 'small_mobilenet_v3'.*keep_largest"):
        channel_order(tiny_supernet, other)


def test_a_space_of_other_values_is_refused(tiny_supernet):
    choices = tiny_supernet.family.space.choices
    other = ofa.SearchSpace([replace(c, values=(2, 5)) if c.name.endswith("expand") else c for c in choices])
    with pytest.raises(SpaceError, match=r"not a subspace of the space"):
        channel_order(tiny_supernet, other)
