import numpy as np
import pytest
import torch

import ofa
from ofa.cost.counted import macs_m, params_m


@pytest.fixture(scope="module")
def family():
    return ofa.create_family("ofa_mobilenet_v3")


def test_the_space_is_the_papers(family):
    per_stage = (3 * 3) ** 2 + (3 * 3) ** 3 + (3 * 3) ** 4
    assert len(family.resolutions) == 25
    assert family.space.size == 25 * per_stage**5


def test_the_largest_network_has_the_published_number_of_parameters(family):
    with torch.device("meta"):
        largest = family.build(family.space.largest)
    assert sum(p.numel() for p in largest.parameters()) / 1e6 == pytest.approx(7.66, abs=0.005)


def test_costs_span_the_mobile_range(family):
    rows = family.space.rows([family.space.smallest, family.space.largest])
    assert np.all(macs_m(family)(rows) < [100, 700])
    assert np.all(macs_m(family)(rows) > [30, 500])
    assert params_m(family)(rows)[1] == pytest.approx(7.66, abs=0.005)


def test_the_wider_published_network_builds():
    family = ofa.create_family("ofa_mobilenet_v3", width_mult=1.2, resolutions=[32, 64])
    arch = family.space.smallest
    network = family.build(arch).eval()
    assert network.get_submodule("stages.4.0.project.conv").out_channels == 192
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)
