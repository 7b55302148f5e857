import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ofa
from ofa.cost.counted import (
    blocks,
    count_macs,
    count_memory,
    macs_m,
    params_m,
    peak_activation_mib,
    resolution,
    size_mib,
)
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace
from ofa.supernet.family import Family


@pytest.mark.parametrize(
    ("module", "input_shape", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2), (3, 11, 11), 5 * 5 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 6, 6), 6 * 6 * 8 * 25),
        (nn.Conv2d(8, 12, 3, groups=4), (8, 5, 5), 3 * 3 * 12 * 2 * 9),
        (nn.Linear(20, 30), (20,), 600),
        (nn.Linear(20, 30), (7, 20), 7 * 600),
        (nn.AvgPool2d(2), (3, 8, 8), 0),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)), (3, 2, 2), 4 * 12 + 32),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_multiply_accumulates_of_known_layers(module, input_shape, macs, device):
    assert count_macs(module.eval().to(device), input_shape) == macs


def test_blocks_and_pixels_of_every_arch_are_counted(tiny):
    rows = tiny.space.sample(20, np.random.default_rng(0))
    for row, n_blocks, pixels in zip(rows, blocks(tiny)(rows), resolution(tiny)(rows), strict=True):
        assert n_blocks == sum(block is not None for _, block in tiny.blocks(row))
        assert pixels == tiny.space.decode(row)["resolution"]


def test_the_costs_of_a_family_are_those_of_its_whole_networks_in_millions(tiny):
    assert (macs_m(tiny).name, macs_m(tiny).unit) == ("macs_m", "million multiply-accumulates")
    assert (params_m(tiny).name, params_m(tiny).unit) == ("params_m", "million parameters")
    for arch in (tiny.space.smallest, tiny.space.largest):
        network, rows = tiny.build(arch).eval(), tiny.space.rows([arch])
        assert params_m(tiny)(rows)[0] * 1e6 == pytest.approx(sum(p.numel() for p in network.parameters()))
        assert macs_m(tiny)(rows)[0] * 1e6 == pytest.approx(count_macs(network, tiny.input_shape(arch)))


def test_counting_leaves_the_global_generator(tiny):
    before = torch.get_rng_state()
    for cost in (macs_m, params_m):
        cost(tiny)(tiny.space.rows([tiny.space.largest]))
    assert torch.equal(torch.get_rng_state(), before)


class Token(nn.Module):
    """A linear layer over a parameter that is expanded to the batch, as class tokens are."""

    def __init__(self):
        super().__init__()
        self.token, self.linear = nn.Parameter(torch.zeros(1, 8)), nn.Linear(8, 5)

    def forward(self, x):
        return self.linear(self.token.expand(len(x), -1)) + x.mean()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_expanded_parameters_that_require_gradients_are_counted(device):
    assert count_macs(Token().eval().to(device), (3, 2, 2)) == 40


def test_a_subnet_is_counted_like_the_static_network(tiny):
    arch, supernet = tiny.space.smallest, ofa.Supernet(tiny).eval()
    static = count_macs(tiny.build(arch).eval(), tiny.input_shape(arch))
    assert count_macs(supernet.subnet(arch).eval(), tiny.input_shape(arch)) == static


MAP = 4 * 10 * 10  # bytes of one channel of 10 by 10 pixels


class Function(nn.Module):
    """A forward pass around one layer, with a layer beside it that is never used."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function, self.layer, self.spare = function, layer or nn.Identity(), nn.Linear(50, 50)

    def forward(self, x):
        return self.function(x, self.layer)


def conv(inputs, outputs, bias=False):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def attend(x, _):
    return functional.scaled_dot_product_attention(x, x, x)


def into_zeros(x, _):
    out = torch.zeros(1, 6, 10, 10, device=x.device)
    out[:, :3] = x
    return out


@pytest.mark.parametrize(
    ("module", "input_shape", "weights", "peak"),
    [
        (nn.Identity(), (3, 10, 10), 0, 3 * MAP),
        (nn.Linear(20, 30), (20,), 4 * 630, 4 * (20 + 30)),
        (nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU()), (3, 10, 10), 4 * (216 + 8), 11 * MAP),
        (nn.Sequential(conv(3, 8, True), nn.BatchNorm2d(8), nn.SiLU()), (3, 10, 10), 4 * (216 + 8), 11 * MAP),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(True), conv(3, 8)), (3, 10, 10), 4 * (12 + 216), 11 * MAP),
        (nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, affine=False)), (3, 10, 10), 4 * (216 + 8), 11 * MAP),
        (nn.Sequential(conv(1, 6), conv(6, 4), conv(4, 2)), (1, 10, 10), 4 * 9 * (6 + 24 + 8), 10 * MAP),
        (nn.Sequential(conv(2, 9), nn.Flatten(), nn.Linear(900, 5)), (2, 10, 10), 4 * (162 + 4505), 11 * MAP),
        (Function(lambda x, layer: x + layer(x), conv(4, 4)), (4, 10, 10), 4 * 144, 8 * MAP),
        (
            Function(lambda x, layer: x + layer(x), nn.Sequential(conv(4, 7), conv(7, 4))),
            (4, 10, 10),
            4 * 2 * 252,
            (4 + 7 + 4) * MAP,
        ),
        (Function(lambda x, layer: x * x.mean((2, 3), keepdim=True)), (4, 10, 10), 0, 4 * MAP + 16),
        (Function(lambda x, layer: x * x.mean((2, 3), keepdim=True) + x), (4, 10, 10), 0, 2 * 4 * MAP + 16),
        (Function(lambda x, layer: x * x.transpose(2, 3)), (4, 10, 1), 0, 4 * MAP + 160),
        (Function(lambda x, layer: x.transpose(1, 2).contiguous()), (4, 10, 10), 0, 2 * 4 * MAP),
        (Function(lambda x, layer: torch.cat([x, x + 1.0], 1)), (4, 10, 10), 0, (4 + 4 + 8) * MAP),
        (Function(lambda x, layer: x + (layer.weight * 2).sum(), conv(4, 4)), (4, 10, 10), 4 * 144, 4 * MAP),
        (Function(into_zeros), (3, 10, 10), 0, 9 * MAP),
        (Function(lambda x, layer: functional.max_pool2d(x, 2)), (4, 10, 10), 0, 5 * MAP),
        (Function(lambda x, layer: (x.relu_(), x + 1)), (4, 10, 10), 0, 8 * MAP),
        (Function(attend), (3, 50, 8), 0, 4 * (3 * 50 * 8 + 2 * 3 * 50 * 50)),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_of_known_modules(module, input_shape, weights, peak, device):
    assert count_memory(module.eval().to(device), input_shape) == (weights, peak)


def test_the_output_of_a_branch_counts_until_its_last_use():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.up, self.down = conv(1, 5), conv(1, 8), conv(8, 5)

        def forward(self, x):
            early = self.first(x)
            return early + self.down(self.up(x))

    assert count_memory(Branches().eval(), (1, 10, 10)).peak_activation == (5 + 8 + 5) * MAP


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_the_memory_of_a_family_is_that_of_its_whole_networks(tiny, end):
    arch = getattr(tiny.space, end)
    rows, whole = tiny.space.rows([arch]), count_memory(tiny.build(arch).eval(), tiny.input_shape(arch))
    assert size_mib(tiny)(rows) * 2**20 == pytest.approx([whole.weights])
    assert peak_activation_mib(tiny)(rows) * 2**20 == pytest.approx([whole.peak_activation])


@pytest.mark.parametrize("name", ["autoformer_tiny", "hybrid_small"])
def test_the_memory_of_transformers_is_that_of_their_whole_networks(name):
    family = ofa.create_family(name, resolutions=[32, 64])
    rows = family.space.sample(3, np.random.default_rng(1))
    for row, peak in zip(rows, peak_activation_mib(family)(rows), strict=True):
        arch = family.space.decode(row)
        whole = count_memory(family.build(arch).eval(), family.input_shape(arch))
        assert peak * 2**20 == pytest.approx(whole.peak_activation)


def test_the_memory_of_a_family_from_a_builder_is_that_of_its_networks():
    family = Family.from_builder(
        SearchSpace([Choice("width", (4, 8))]), lambda arch: conv(3, int(arch["width"])), resolution=10
    )
    rows = family.space.rows([family.space.smallest, family.space.largest])
    assert size_mib(family)(rows) * 2**20 == pytest.approx([4 * 108, 4 * 216])
    assert peak_activation_mib(family)(rows) * 2**20 == pytest.approx([7 * MAP, 11 * MAP])


def test_a_subnet_counts_only_its_own_part_of_the_supernet(tiny):
    arch, supernet = tiny.space.smallest, ofa.Supernet(tiny).eval()
    static = count_memory(tiny.build(arch).eval(), tiny.input_shape(arch))
    assert count_memory(supernet.subnet(arch).eval(), tiny.input_shape(arch)) == static


def test_the_size_counts_one_of_four_vectors_of_each_batch_norm(tiny):
    row = tiny.space.rows([tiny.space.largest])
    network = tiny.build(tiny.space.largest)
    channels = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert channels > 0
    assert size_mib(tiny)(row)[0] * 2**20 == pytest.approx(4 * (params_m(tiny)(row)[0] * 1e6 - channels))


def test_counting_memory_leaves_the_global_generator_and_the_weights(tiny):
    module, before = tiny.build(tiny.space.smallest).eval(), torch.get_rng_state()
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count_memory(module, tiny.input_shape(tiny.space.smallest))
    peak_activation_mib(tiny)(tiny.space.rows([tiny.space.largest]))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, values[name]) for name, tensor in module.state_dict().items())
