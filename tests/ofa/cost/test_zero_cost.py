import numpy as np
import pytest
import torch
from torch import nn

from ofa import Choice, Family, SearchSpace, Slot, create_family
from ofa.cost.zero_cost import synflow
from supernets.blocks.convolutions import ConvNorm
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_positive_score_that_is_the_same_again(name):
    family = create_family(name)
    rows = family.space.rows([family.space.smallest, family.space.largest])
    small, large = synflow(family)(rows)
    assert 0 < small < large < np.inf
    assert synflow(family)(rows).tolist() == [small, large]


def test_it_is_synflow_where_the_mean_of_each_output_is_all_there_is():
    """Without padding, a chain of linear layers with constant weights has the same output everywhere."""
    space = SearchSpace([Choice("resolution", (8,)), Choice("width", (4, 8))])
    slots = (
        Slot("first", lambda width: _Pointwise(3, width), ("width",)),
        Slot("second", lambda width: _Pointwise(width, 5), ("width",)),
    )
    family = Family("chain", space, slots)
    row = space.rows([space.largest])
    layers = [block.build() for block in family.blocks_by_path(space.largest).values()]
    with torch.no_grad():
        output = nn.Sequential(*layers)(torch.ones(1, 3, 8, 8))
    assert synflow(family)(row)[0] == pytest.approx(float(output.mean()), rel=1e-5)


class _Pointwise(ConvNorm):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel=1)

    def build(self):
        layer = nn.Conv2d(self.in_channels, self.out_channels, 1, bias=False)
        nn.init.constant_(layer.weight, 0.3)
        return layer


def test_the_global_generator_is_left_as_it_is():
    family = create_family("small_mobilenet_v3")
    before = torch.get_rng_state()
    synflow(family)(family.space.rows([family.space.smallest]))
    assert torch.equal(torch.get_rng_state(), before)
