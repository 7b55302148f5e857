import pytest
import torch
from torch import nn

import ofa
from ofa.cost.counted import count_macs, macs_m, params_m


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
