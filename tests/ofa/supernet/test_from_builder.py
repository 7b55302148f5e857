import pytest
import torch
from torch import nn

import ofa
from ofa import Choice, Family, SearchSpace
from ofa.core.errors import FamilyError
from ofa.cost.counted import count_macs, params_m
from ofa.supernet.sharing import add_extras, share
from supernets.rules import CenterTable, CornerTable


class Network(nn.Module):
    """Some convolutions, a classifier, and a buffer that depends on the width."""

    def __init__(self, depth=2, width=6, in_channels=3):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.layers = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)))
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)
        self.register_buffer("scale", torch.tensor(float(width)))

    def forward(self, images):
        features = self.norm(self.layers(self.stem(images)))
        return self.head(features.mean((2, 3))) * self.scale


class Remembering(Network):
    """Keeps in eval mode what it once computed from a weight, as LeViT of timm does with its attention biases."""

    kept = None

    def train(self, mode=True):
        self.kept = None
        return super().train(mode)

    def forward(self, images):
        if self.training:
            return super().forward(images)
        self.kept = self.head.bias.detach().clone() if self.kept is None else self.kept
        return super().forward(images) - self.head.bias + self.kept


CHOICES = {"depth": (1, 2, 3), "width": (4, 6)}


def space(choices=CHOICES):
    return SearchSpace(Choice(name, values) for name, values in choices.items())


def build(arch):
    return Network(arch["depth"], arch["width"])


def test_a_family_of_a_function():
    family = Family.from_builder(space(), build, resolution=16, name="mine")
    assert (family.name, family.resolutions, family.space.names) == ("mine", (16,), ("resolution", "depth", "width"))
    assert family.input_shape(family.space.largest) == (3, 16, 16)
    supernet = ofa.Supernet(family).eval()
    arch = family.space.arch({"depth": 2, "width": 4})
    subnet, extracted = supernet.subnet(arch), supernet.extract(arch)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(subnet(images), extracted(images))
    assert type(subnet) is type(extracted) is Network
    assert torch.equal(extracted.layers[1].weight, supernet.network.layers[1].weight[:4, :4])
    assert (float(subnet.scale), float(extracted.scale), float(supernet.network.scale)) == (4, 4, 6)
    assert subnet.norm.running_mean.data_ptr() == supernet.network.norm.running_mean.data_ptr()
    assert params_m(family)(family.space.rows([arch])) == sum(p.numel() for p in extracted.parameters()) / 1e6


def test_the_space_may_say_the_resolution_and_images_may_be_grey():
    choices = {"resolution": (8, 16), **CHOICES}
    family = Family.from_builder(
        space(choices), lambda arch: Network(arch["depth"], arch["width"], 1), in_channels=1, resolution_multiple=8
    )
    assert family.resolutions == (8, 16)
    assert ofa.Supernet(family).subnet(family.space.smallest)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(FamilyError, match="resolution 12 is not allowed; give multiples of 8 pixels"):
        Family.from_builder(space(), build, resolution=12, resolution_multiple=8)


def test_subnets_forget_what_they_kept_of_weights_that_have_changed():
    images = torch.randn(2, 3, 16, 16)
    family = Family.from_builder(space(), lambda arch: Remembering(arch["depth"], arch["width"]), resolution=16)
    supernet = ofa.Supernet(family).eval()
    smallest = family.space.smallest
    before = supernet.subnet(smallest)(images)
    with torch.no_grad():
        supernet.network.head.bias.add_(1.0)
    assert torch.equal(supernet.subnet(smallest)(images), supernet.extract(smallest)(images))
    assert not torch.equal(supernet.subnet(smallest)(images), before)


def test_what_is_not_part_of_the_largest_network_is_named_with_both_shapes():
    with pytest.raises(FamilyError, match=r"stem\.weight: shape \(6, 3, 3, 3\) does not nest .* \(4, 3, 3, 3\)"):
        Family.from_builder(space(), lambda arch: Network(arch["depth"], 10 - arch["width"]))
    with pytest.raises(FamilyError, match=r"layers\.1\.weight is in a smaller network but not in the largest"):
        Family.from_builder(space(), lambda arch: Network(4 - arch["depth"], arch["width"]))


class Tied(nn.Module):
    """Holds the same layer under two names."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(12, width)
        self.middle = nn.Linear(width, width)
        self.again = self.middle
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.again(self.middle(self.first(images.flatten(1))).relu()))


def test_a_parameter_with_two_names_stays_one():
    family = Family.from_builder(space({"width": (4, 6)}), lambda arch: Tied(arch["width"]), resolution=2)
    supernet = ofa.Supernet(family)
    arch, images = family.space.smallest, torch.randn(2, 3, 2, 2)
    extracted = supernet.extract(arch)
    assert extracted.again.weight is extracted.middle.weight
    assert torch.equal(supernet.subnet(arch)(images), extracted(images))
    supernet.subnet(arch)(images).square().sum().backward()
    extracted(images).square().sum().backward()
    torch.testing.assert_close(supernet.network.middle.weight.grad[:4, :4], extracted.middle.weight.grad)


class Token(nn.Module):
    """Gives its own parameter, expanded, to another module, as class tokens are."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.head = nn.Sequential(nn.Linear(12, 10))

    def forward(self, images):
        return self.head(self.token.expand(len(images), -1, -1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parameters_that_flow_through_modules_can_be_counted(device):
    assert count_macs(Token().to(device), (3, 2, 2)) == 120


@pytest.mark.parametrize(
    ("rule", "full", "small", "expected"),
    [
        (
            CenterTable(extra=3),
            (52, 4),
            (12, 2),
            lambda t: torch.cat([t[:49].view(7, 7, 4)[2:5, 2:5].reshape(9, 4), t[49:]])[:, :2],
        ),
        (CenterTable(extra=3), (12, 4), (12, 2), lambda t: t[:, :2]),
        (CornerTable(), (4, 49), (2, 9), lambda t: t.view(4, 7, 7)[:2, :3, :3].reshape(2, 9)),
        (CornerTable(), (4, 49), (2, 49), lambda t: t[:2]),
    ],
)
def test_tables_of_positions_share_values_and_gradients(rule, full, small, expected):
    largest, module = nn.Module(), nn.Module()
    largest.table, module.table = nn.Parameter(torch.randn(full)), nn.Parameter(torch.zeros(small))
    add_extras(largest, {"table": rule})
    largest.table.grad = torch.zeros_like(largest.table)
    share(module, largest, "", {"table": rule})
    assert torch.equal(module.table, expected(largest.table))
    (wanted,) = torch.autograd.grad(expected(largest.table).pow(3).sum(), [largest.table])
    module.table.pow(3).sum().backward()
    assert torch.equal(largest.table.grad, wanted)


@pytest.mark.parametrize(
    ("rule", "full", "small"),
    [
        (CenterTable(), (52, 4), (12, 2)),
        (CenterTable(extra=3), (49, 4), (9, 2)),
        (CenterTable(), (9, 4), (49, 2)),
        (CornerTable(), (4, 50), (2, 9)),
        (CornerTable(), (4, 9), (2, 49)),
    ],
)
def test_tables_that_do_not_fit_are_named_with_both_shapes(rule, full, small):
    largest, module = nn.Module(), nn.Module()
    largest.table, module.table = nn.Parameter(torch.zeros(full)), nn.Parameter(torch.zeros(small))
    with pytest.raises(FamilyError) as caught:
        share(module, largest, "", {"table": rule})
    assert all(said in str(caught.value) for said in ("table: shape", str(full), str(small)))
