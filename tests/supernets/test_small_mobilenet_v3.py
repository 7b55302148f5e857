import pytest

import ofa


def test_the_space_is_large_though_the_networks_are_small():
    family = ofa.create_family("small_mobilenet_v3")
    per_stage = sum((2 * 3) ** depth for depth in (1, 2, 3, 4))
    assert family.space.size == len(family.resolutions) * per_stage**3
    assert per_stage**3 >= 10**8


@pytest.mark.parametrize("width_mult", [0.5, 1.0, 2.0])
def test_widths_follow_the_multiplier(width_mult):
    family = ofa.create_family("small_mobilenet_v3", width_mult=width_mult)
    state = family.build(family.space.smallest).state_dict()
    assert state["stages.2.0.project.conv.weight"].shape[0] == 64 * width_mult
    assert state["head.classifier.weight"].shape == (10, 192 * width_mult)
